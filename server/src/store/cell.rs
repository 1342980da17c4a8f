//! Values of a column as whole numbers.
//!
//! Most floats are read no finer than to two or three decimals. A column of such floats is kept as whole numbers of
//! hundredths or thousandths, which compress far better, as long as each of its values comes back to the bit. A column
//! only ever rises to a wider kind, so that what lies before can be raised with it.

/// A value as it is read back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A float.
    Float(f64),
    /// A whole number.
    Integer(i64),
}

/// How the values of a column are held as whole numbers. The order of the floats' kinds is that of rising.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    /// Whole numbers as they are.
    Integer = 0,
    /// Floats in hundredths.
    Centi = 1,
    /// Floats in thousandths.
    Milli = 2,
    /// Floats by their bits.
    Bits = 3,
}

/// Far below 2^53, so that hundredths can become thousandths and every cell is an exact float.
const MAX_SCALED: f64 = (1u64 << 48) as f64;

impl Kind {
    /// The kind with this number.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Integer, Self::Centi, Self::Milli, Self::Bits].into_iter().find(|kind| *kind as u8 == number)
    }

    /// The kind that a column begins with.
    pub(super) fn first(is_float: bool) -> Self {
        if is_float { Self::Centi } else { Self::Integer }
    }

    /// The narrowest kind from `self` on, which is one of floats, that holds `float` to the bit, and its cell.
    pub(super) fn fit(self, float: f64) -> (Self, i64) {
        if self <= Self::Centi
            && let Some(cell) = scaled(float, 100.0)
        {
            return (Self::Centi, cell);
        }
        if self <= Self::Milli
            && let Some(cell) = scaled(float, 1000.0)
        {
            return (Self::Milli, cell);
        }
        (Self::Bits, float.to_bits() as i64)
    }

    /// Turns a cell of this kind into one of `kind`, which is not lower.
    pub(super) fn raise(self, cell: i64, kind: Self) -> i64 {
        match (self, kind) {
            (Self::Centi, Self::Milli) => cell.wrapping_mul(10),
            (Self::Centi, Self::Bits) => (cell as f64 / 100.0).to_bits() as i64,
            (Self::Milli, Self::Bits) => (cell as f64 / 1000.0).to_bits() as i64,
            _ => cell,
        }
    }

    /// What a cell means.
    pub(super) fn value(self, cell: i64) -> Value {
        match self {
            Self::Integer => Value::Integer(cell),
            Self::Centi => Value::Float(cell as f64 / 100.0),
            Self::Milli => Value::Float(cell as f64 / 1000.0),
            Self::Bits => Value::Float(f64::from_bits(cell as u64)),
        }
    }
}

fn scaled(float: f64, scale: f64) -> Option<i64> {
    let product = float * scale;
    if product.is_nan() || product.abs() >= MAX_SCALED {
        return None;
    }
    let cell = (product + 0.5f64.copysign(product)) as i64;
    ((cell as f64 / scale).to_bits() == float.to_bits()).then_some(cell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_comes_back_to_the_bit_from_the_narrowest_kind_that_holds_it() {
        let table = [
            (0.0, Kind::Centi),
            (-0.0, Kind::Bits),
            (12.34, Kind::Centi),
            (-0.01, Kind::Centi),
            (45.123, Kind::Milli),
            (1.0 / 3.0, Kind::Bits),
            (1e300, Kind::Bits),
            (f64::MIN_POSITIVE, Kind::Bits),
            (f64::NAN, Kind::Bits),
        ];
        for (float, expected) in table {
            let (kind, cell) = Kind::Centi.fit(float);
            assert_eq!(kind, expected, "{float}");
            let Value::Float(back) = kind.value(cell) else { panic!("{float}") };
            assert_eq!(back.to_bits(), float.to_bits());
        }
        for cents in (0..1_000_000).step_by(7) {
            let float = f64::from(cents) / 100.0;
            assert_eq!(Kind::Centi.fit(float), (Kind::Centi, i64::from(cents)));
        }
    }

    #[test]
    fn a_raised_cell_means_the_same_value() {
        for float in [0.0, 12.34, -99.99, 45.1] {
            let (kind, cell) = Kind::Centi.fit(float);
            for wider in [Kind::Milli, Kind::Bits] {
                assert_eq!(wider.value(kind.raise(cell, wider)), Value::Float(float));
            }
        }
    }

    #[test]
    fn a_column_never_falls_back_to_a_narrower_kind() {
        assert_eq!(Kind::Milli.fit(1.5), (Kind::Milli, 1500));
        assert_eq!(Kind::Bits.fit(1.5).0, Kind::Bits);
    }
}
