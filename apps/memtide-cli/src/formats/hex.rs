//! Bytes as hexadecimal digits: two for each byte, written in lower case, read in either.

/// Appends the digits of `bytes`.
pub(crate) fn encode(bytes: &[u8], out: &mut String) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    out.reserve(2 * bytes.len());
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// The bytes that `digits` spell; `None` if they spell none.
pub(crate) fn decode(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

fn digit(ascii: u8) -> Option<u8> {
    match ascii {
        b'0'..=b'9' => Some(ascii - b'0'),
        b'a'..=b'f' => Some(ascii - b'a' + 10),
        b'A'..=b'F' => Some(ascii - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_read_back_and_everything_else_is_refused() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut digits = String::new();
        encode(&bytes, &mut digits);
        assert_eq!(decode(digits.as_bytes()), Some(bytes.clone()));
        assert_eq!(decode(digits.to_uppercase().as_bytes()), Some(bytes));
        for wrong in ["0", "0g", "+1", " 1", "é"] {
            assert_eq!(decode(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
