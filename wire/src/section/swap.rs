use serde::{Deserialize, Serialize};

/// Swap space (`/proc/meminfo`, `/proc/vmstat`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Swap {
    /// Bytes there are.
    pub total: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Bytes read back from swap since the start.
    pub bytes_in: Option<u64>,
    /// Bytes written to swap since the start.
    pub bytes_out: Option<u64>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden("swap_bare", Swap::default(), "00 00 00 00"),
            golden(
                "swap_full",
                Swap { total: 4 << 30, free: 65_536, bytes_in: Some(0), bytes_out: Some(251) },
                "fd 00 00 00 00 01 00 00 00 fc 00 00 01 00 01 00 01 fb fb 00",
            ),
            golden(
                "swap_extreme",
                Swap { total: u64::MAX, free: u64::MAX, bytes_in: Some(u64::MAX), bytes_out: None },
                "fd ff ff ff ff ff ff ff ff fd ff ff ff ff ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 00",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(3, &vectors());
    }
}
