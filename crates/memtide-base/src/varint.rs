//! LEB128 integers: seven bits a byte, least significant first, at most ten bytes.
//!
//! Readers take hostile bytes: a missing end, an eleventh byte or bits above the 64th are `None`.

/// Most bytes one integer takes.
pub const VARINT_LEN_MAX: usize = 10;

/// Appends `value`.
#[inline]
pub fn write_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7F) as u8);
}

/// Bytes [`write_u64`] appends for `value`.
#[inline]
#[must_use]
pub fn len_u64(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads an integer and moves `input` behind it.
#[inline]
pub fn read_u64(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, &byte) in input.iter().enumerate().take(VARINT_LEN_MAX) {
        if index == VARINT_LEN_MAX - 1 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            *input = &input[index + 1..];
            return Some(value);
        }
    }
    None
}

/// Reads an integer that must fit in 32 bits.
#[inline]
pub fn read_u32(input: &mut &[u8]) -> Option<u32> {
    read_u64(input).and_then(|value| u32::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overlong_and_unfinished_integers_are_refused() {
        for hostile in [&[][..], &[0x80], &[0xFF; 10], &[0x80; 11]] {
            assert_eq!(read_u64(&mut &*hostile), None, "{hostile:?}");
        }
    }

    proptest! {
        #[test]
        fn integers_read_back_and_leave_the_rest(shift in 0..64_u32, noise: u64, rest: Vec<u8>) {
            let value = noise >> shift;
            let mut bytes = Vec::new();
            write_u64(&mut bytes, value);
            prop_assert_eq!(bytes.len(), len_u64(value));
            bytes.extend_from_slice(&rest);
            let mut input = bytes.as_slice();
            prop_assert_eq!(read_u64(&mut input), Some(value));
            prop_assert_eq!(input, rest.as_slice());
        }
    }
}
