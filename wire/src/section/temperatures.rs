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
