//! Bytes for the eye: one row is one line, and nothing in it can move the cursor of a terminal.
//!
//! Text stays as it is, except: a backslash is `\\`, a newline `\n`, and every byte of another control
//! character or of what is not UTF-8 is `\xNN`. Nothing reads this back; machines use `--json`.

/// Appends `bytes`.
pub(crate) fn escape(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str(r"\\"),
                '\n' => out.push_str(r"\n"),
                c if c.is_control() => numbers(c.encode_utf8(&mut [0; 4]).as_bytes(), out),
                c => out.push(c),
            }
        }
        numbers(chunk.invalid(), out);
    }
}

fn numbers(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        out.push_str(r"\x");
        super::hex::encode(&[*byte], out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line_of_printable_text() {
        for (bytes, shown) in [
            (&b"plain"[..], "plain"),
            ("größe".as_bytes(), "größe"),
            (b"a\\b", r"a\\b"),
            (b"one\ntwo\tthree\x1b[0m", r"one\ntwo\x09three\x1b[0m"),
            (b"\xff\x00a\xc3", r"\xff\x00a\xc3"),
            ("\u{9b}".as_bytes(), r"\xc2\x9b"),
        ] {
            let mut out = String::new();
            escape(bytes, &mut out);
            assert_eq!(out, shown);
        }
    }
}
