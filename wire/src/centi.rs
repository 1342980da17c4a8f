//! Figures with two decimals.

use serde::{Deserialize, Serialize};

/// A figure of 0 or more in hundredths: percentages and load averages, which are read no finer than that.
///
/// One to three bytes on the wire where a float takes eight; the figures at rest compress better too, and NaN cannot
/// be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Centi(pub u32);

impl Centi {
    /// Rounds `value` to hundredths. Below 0 gives 0, NaN gives `None`, too large the largest.
    pub fn round(value: f64) -> Option<Self> {
        if value.is_nan() {
            return None;
        }
        // `as` saturates at both ends.
        Some(Self((value * 100.0).round() as u32))
    }

    /// `part` as a percentage of `whole`, which must not be zero to have one.
    pub fn percent(part: u64, whole: u64) -> Option<Self> {
        if whole == 0 {
            return None;
        }
        Self::round(part as f64 * 100.0 / whole as f64)
    }

    /// The figure: the float nearest to its two decimals.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_to_the_nearest_hundredth() {
        assert_eq!(Centi::round(12.345), Some(Centi(1235)));
        assert_eq!(Centi::round(-1.0), Some(Centi(0)));
        assert_eq!(Centi::round(f64::NAN), None);
        assert_eq!(Centi::round(f64::INFINITY), Some(Centi(u32::MAX)));
        assert_eq!(Centi(1235).value(), 12.35);
        assert_eq!(Centi::percent(1, 3), Some(Centi(3333)));
        assert_eq!(Centi::percent(1, 0), None);
    }
}
