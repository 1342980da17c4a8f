//! Names in which `*` stands for any characters.

/// Whether one of `patterns` is `name`.
pub(super) fn matches_any<P: AsRef<str>>(patterns: &[P], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern.as_ref().as_bytes(), name.as_bytes()))
}

/// Linear in time for usual patterns, quadratic at worst: after a mismatch only the last `*` takes one more byte.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            last_star = Some((p, n));
            p += 1;
        } else if p < pattern.len() && pattern[p] == name[n] {
            p += 1;
            n += 1;
        } else if let Some((star, taken)) = last_star {
            p = star + 1;
            n = taken + 1;
            last_star = Some((star, taken + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_the_rest_for_itself() {
        for (pattern, name) in [
            ("", ""),
            ("*", ""),
            ("*", "x"),
            ("eth0", "eth0"),
            ("br-*", "br-"),
            ("*a*b", "xaabab"),
            ("a**", "a"),
        ] {
            assert!(matches_any(&[pattern], name), "{pattern} is {name}");
        }
        for (pattern, name) in [("", "x"), ("eth", "eth0"), ("br-*", "br0"), ("*a*b", "xaba"), ("a?", "ab")] {
            assert!(!matches_any(&[pattern], name), "{pattern} is not {name}");
        }
    }

    #[test]
    fn many_stars_do_not_take_forever() {
        assert!(!matches_any(&["*a*a*a*a*a*a*a*a*b"], &"a".repeat(5000)));
    }
}
