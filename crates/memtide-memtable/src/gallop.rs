//! Exponential search: cheap where the answer is near, logarithmic where it is far (Bentley, Yao 1976).

/// How many of `0..len` from the first on satisfy `holds`, which is true up to some place and false behind.
/// O(log of the answer).
#[inline]
pub(crate) fn gallop(len: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut step) = (0, 1);
    while step <= len - low && holds(low + step - 1) {
        low += step;
        step *= 2;
    }
    let mut high = len.min(low + step - 1);
    while low < high {
        let middle = low.midpoint(high);
        (low, high) = if holds(middle) { (middle + 1, high) } else { (low, middle) };
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_in_every_length_is_found_in_few_steps() {
        for len in 0..70 {
            for answer in 0..=len {
                let asked = std::cell::Cell::new(0_u32);
                let found = gallop(len, |index| {
                    assert!(index < len);
                    asked.set(asked.get() + 1);
                    index < answer
                });
                assert_eq!(found, answer, "of {len}");
                let bits = usize::BITS - answer.leading_zeros();
                assert!(asked.get() <= 2 * bits + 1, "{answer} of {len}: {} steps", asked.get());
            }
        }
    }
}
