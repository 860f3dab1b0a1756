//! One JSON object a line: `{"k": "…", "v": "…"}`, with `k_hex` and `v_hex` for bytes that are not UTF-8.
//!
//! Written without spaces, so equal records are equal lines. Read as any JSON object of exactly these
//! fields; empty lines are passed over.

use std::io::{self, BufRead, Write};

use serde_json::{Map, Value};

use super::lines::LineReader;
use super::{Record, hex};

/// The row of a key and, unless it is left out, its value.
pub(crate) fn row(key: &[u8], value: Option<&[u8]>) -> Value {
    let mut row = Map::new();
    let fields = [("k", Some(key)), ("v", value)];
    for (name, bytes) in fields.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))) {
        let (name, text) = match std::str::from_utf8(bytes) {
            Ok(text) => (name.to_owned(), text.to_owned()),
            Err(_) => {
                let mut digits = String::new();
                hex::encode(bytes, &mut digits);
                (format!("{name}_hex"), digits)
            }
        };
        row.insert(name, Value::String(text));
    }
    Value::Object(row)
}

/// Writes one row and a newline.
pub(crate) fn write_row(
    output: &mut impl Write,
    key: &[u8],
    value: Option<&[u8]>,
) -> io::Result<()> {
    serde_json::to_writer(&mut *output, &row(key, value))?;
    output.write_all(b"\n")
}

/// Reads rows.
pub(crate) fn records<R: BufRead>(
    mut lines: LineReader<R>,
) -> impl Iterator<Item = memtide::Result<Record>> {
    let mut line = Vec::new();
    std::iter::from_fn(move || {
        loop {
            match lines.next(&mut line) {
                Ok(true) if line.trim_ascii().is_empty() => {}
                Ok(true) => {
                    let read = parse(&line).map_err(|what| lines.wrong(lines.line(), what));
                    let line = lines.line();
                    return Some(read.map(|(key, value)| Record { key, value, line }));
                }
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

fn parse(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let row: Value = serde_json::from_slice(line).map_err(|error| format!("no JSON: {error}"))?;
    let Value::Object(mut row) = row else {
        return Err("a row is an object of \"k\" and \"v\"".to_owned());
    };
    let key = take(&mut row, "k")?;
    let value = take(&mut row, "v")?;
    match row.keys().next() {
        None => Ok((key, value)),
        Some(name) => Err(format!("unknown field {name:?}: a row has \"k\" and \"v\"")),
    }
}

/// The bytes of field `name`, or of `name_hex`.
fn take(row: &mut Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let (text, digits) = (row.remove(name), row.remove(&format!("{name}_hex")));
    match (text, digits) {
        (Some(Value::String(text)), None) => Ok(text.into_bytes()),
        (None, Some(Value::String(digits))) => hex::decode(digits.as_bytes())
            .ok_or_else(|| format!("\"{name}_hex\" is not hexadecimal")),
        (None, None) => Err(format!("the row has neither \"{name}\" nor \"{name}_hex\"")),
        (Some(_), Some(_)) => Err(format!("the row has both \"{name}\" and \"{name}_hex\"")),
        _ => Err(format!("\"{name}\" is no string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_read_back() {
        let hostile: &[&[u8]] =
            &[b"", b"plain", b"a\"b\\c\n\t\0", b"\xff\x00", "größe \u{1f30a}".as_bytes()];
        for key in hostile {
            for value in hostile {
                let mut text = Vec::new();
                write_row(&mut text, key, Some(value)).expect("in memory");
                assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), 1);
                let read: Vec<_> = records(LineReader::new(&text[..], "rows")).collect();
                let [Ok(record)] = &read[..] else { panic!("{read:?}") };
                assert_eq!((&record.key[..], &record.value[..]), (*key, *value));
            }
        }
    }

    #[test]
    fn rows_that_are_no_records_are_named_with_their_line() {
        for (line, what) in [
            ("{", "no JSON"),
            ("[]", "a row is an object"),
            (r#"{"k":"a"}"#, "neither \"v\" nor \"v_hex\""),
            (r#"{"k":"a","k_hex":"61","v":""}"#, "both \"k\""),
            (r#"{"k":1,"v":""}"#, "\"k\" is no string"),
            (r#"{"k":"a","v_hex":"0"}"#, "\"v_hex\" is not hexadecimal"),
            (r#"{"k":"a","v":"","x":1}"#, "unknown field \"x\""),
        ] {
            let text = format!("\n{line}\n");
            let mut read = records(LineReader::new(text.as_bytes(), "rows"));
            let error = read.next().expect("a row").expect_err("wrong").to_string();
            assert!(error.starts_with("rows line 2: ") && error.contains(what), "{error}");
        }
    }
}
