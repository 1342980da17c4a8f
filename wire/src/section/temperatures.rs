use serde::{Deserialize, Serialize};

use super::Name;
use crate::bounded::List;
use crate::limits::MAX_SENSORS;

/// Temperature sensors (`/sys/class/hwmon`, else `/sys/class/thermal`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Temperatures {
    /// Ordered by name.
    pub sensors: List<Temperature, MAX_SENSORS>,
}

/// One sensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Temperature {
    /// Telegraf's name of it, such as `coretemp_core_0`.
    pub sensor: Name,
    /// Thousandths of a degree Celsius.
    pub millidegrees: i32,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden, list, text};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden("temperatures_none", Temperatures::default(), "00"),
            golden(
                "temperatures_three",
                Temperatures {
                    sensors: list(vec![
                        Temperature { sensor: text("coretemp_core_0"), millidegrees: 45_500 },
                        Temperature { sensor: text("температура"), millidegrees: i32::MIN },
                        Temperature { sensor: text(""), millidegrees: i32::MAX },
                    ]),
                },
                "03 0f 63 6f 72 65 74 65 6d 70 5f 63 6f 72 65 5f 30 fc 78 63 01 00 16 d1 82 d0 b5 d0 bc d0 bf d0 \
                 b5 d1 80 d0 b0 d1 82 d1 83 d1 80 d0 b0 fc ff ff ff ff 00 fc fe ff ff ff",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(9, &vectors());
    }
}
