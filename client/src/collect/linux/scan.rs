//! Picking figures out of the kernel's texts.

/// Lines without their ends.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| b == b'\n')
}

/// Words between blanks.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&b| b == b' ' || b == b'\t' || b == b'\n').filter(|word| !word.is_empty())
}

/// A decimal number, all of the word. `None` if it is none, or does not fit.
pub(super) fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0u64, |sum, &b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}

/// A decimal number that may be negative.
pub(super) fn signed(word: &[u8]) -> Option<i64> {
    match word.strip_prefix(b"-") {
        Some(digits) => i64::try_from(number(digits)?).ok()?.checked_neg(),
        None => i64::try_from(number(word)?).ok(),
    }
}

/// A decimal number with a fraction, such as `0.37`.
pub(super) fn fraction(word: &[u8]) -> Option<f64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// Text without blanks at its ends.
pub(super) fn trimmed(text: &[u8]) -> String {
    String::from_utf8_lossy(text.trim_ascii()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_of_digits_that_fit_are_numbers() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for word in [&b""[..], b"-1", b"1x", b"18446744073709551616", b" 1"] {
            assert_eq!(number(word), None, "{word:?}");
        }
        assert_eq!((signed(b"-1"), signed(b"-"), signed(b"9223372036854775808")), (Some(-1), None, None));
        assert_eq!(fraction(b"0.37"), Some(0.37));
    }

    #[test]
    fn words_are_found_between_any_blanks() {
        assert_eq!(words(b"  a\t b\n").collect::<Vec<_>>(), [b"a", b"b"]);
    }
}
