//! Short columns in few bits: groups of 16 numbers, each group as wide as its widest number.
//!
//! A group is a byte with the width in bits, then the numbers, lowest bits first, padded to whole bytes.

const GROUP: usize = 16;

/// Appends `numbers`.
pub(super) fn pack(numbers: &[u64], out: &mut Vec<u8>) {
    for group in numbers.chunks(GROUP) {
        let width = width(group);
        out.push(width as u8);
        let (mut pending, mut bits) = (0u128, 0u32);
        for number in group {
            pending |= u128::from(*number) << bits;
            bits += width;
            while bits >= 8 {
                out.push(pending as u8);
                pending >>= 8;
                bits -= 8;
            }
        }
        if bits > 0 {
            out.push(pending as u8);
        }
    }
}

/// How many bytes `pack` would append.
pub(super) fn packed_len(numbers: &[u64]) -> usize {
    numbers.chunks(GROUP).map(|group| 1 + (group.len() * width(group) as usize).div_ceil(8)).sum()
}

fn width(group: &[u64]) -> u32 {
    64 - group.iter().fold(0, |all, number| all | number).leading_zeros()
}

/// Reads `count` numbers; `None` where the bytes are not exactly those.
pub(super) fn unpack(mut bytes: &[u8], count: usize) -> Option<Vec<u64>> {
    // A group takes at least a byte, so that a false count cannot allocate much.
    if count.div_ceil(GROUP) > bytes.len() {
        return None;
    }
    let mut numbers = Vec::with_capacity(count);
    while numbers.len() < count {
        let (&width, rest) = bytes.split_first()?;
        let width = u32::from(width);
        let in_group = GROUP.min(count - numbers.len());
        if width > 64 {
            return None;
        }
        let (group, rest) = rest.split_at_checked((in_group * width as usize).div_ceil(8))?;
        bytes = rest;
        let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
        let (mut pending, mut bits) = (0u128, 0u32);
        let mut group = group.iter();
        for _ in 0..in_group {
            while bits < width {
                pending |= u128::from(*group.next()?) << bits;
                bits += 8;
            }
            numbers.push(pending as u64 & mask);
            pending >>= width;
            bits -= width;
        }
    }
    bytes.is_empty().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_of_any_width_survive(numbers in proptest::collection::vec((any::<u64>(), 0u32..64), 0..70)) {
            let numbers: Vec<u64> = numbers.into_iter().map(|(number, shift)| number >> shift).collect();
            let mut out = Vec::new();
            pack(&numbers, &mut out);
            prop_assert_eq!(out.len(), packed_len(&numbers));
            prop_assert_eq!(unpack(&out, numbers.len()), Some(numbers.clone()));
            out.push(0);
            prop_assert_eq!(unpack(&out, numbers.len()), None);
        }
    }

    #[test]
    fn a_false_count_or_width_is_refused() {
        assert_eq!(unpack(&[0], 1 << 40), None);
        assert_eq!(unpack(&[65, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1), None);
        assert_eq!(unpack(&[8], 1), None);
    }
}
