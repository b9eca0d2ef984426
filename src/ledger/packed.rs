//! Packed: numbers in order, each as its difference from the one before, in as few bytes as that takes (LEB128).

/// Packs numbers that are in order.
#[must_use]
pub fn pack(sorted: &[u64]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(sorted.len() * 3);
    let mut before = 0;
    for &number in sorted {
        let mut rest = number.saturating_sub(before);
        before = number;
        while rest >= 0x80 {
            packed.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        packed.push(rest.to_le_bytes()[0]);
    }
    packed
}

/// Hands over the numbers, in order. `None` where the bytes are none that [`pack`] makes.
pub fn unpack(packed: &[u8], mut take: impl FnMut(u64)) -> Option<()> {
    let (mut number, mut difference, mut shift) = (0_u64, 0_u64, 0_u32);
    for byte in packed {
        difference |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 != 0 {
            shift += 7;
            continue;
        }
        number = number.checked_add(difference)?;
        take(number);
        (difference, shift) = (0, 0);
    }
    (shift == 0).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unpacked_as_they_were_packed() {
        for numbers in [&[][..], &[0], &[0, 0, 1], &[127, 128, 129, 300, 1 << 20], &[5, u64::MAX - 1, u64::MAX]] {
            let mut unpacked = Vec::new();
            assert_eq!(unpack(&pack(numbers), |number| unpacked.push(number)), Some(()));
            assert_eq!(unpacked, numbers);
        }
    }

    #[test]
    fn damage_is_noticed() {
        for (rule, packed) in [
            ("cut off", &[0x80][..]),
            ("too long", &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]),
            ("beyond all numbers", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x01]),
        ] {
            assert_eq!(unpack(packed, |_| ()), None, "{rule}");
        }
    }
}
