//! Samples whose content says whose they are, so that one which was altered or mixed up is found.

use std::sync::Arc;

use vitals_wire::bounded::List;
use vitals_wire::ids::HostId;
use vitals_wire::line::{HostTags, write_sample};
use vitals_wire::sample::Sample;
use vitals_wire::section::{Section, Swap, System};

/// Swap of a sample whose line no InfluxDB takes: `total` holds one of these.
pub const MALFORMED: u64 = 0xbad;
pub const CONFLICT: u64 = 0xbad1;

/// The id of a host by its place in the schedule.
pub fn host_id(host: usize) -> HostId {
    HostId([host as u8 + 1; 16])
}

/// Its place.
pub fn host_of(id: HostId) -> Option<usize> {
    (id.0 == [id.0[0]; 16]).then(|| usize::from(id.0[0]).checked_sub(1)).flatten()
}

/// What stands on its lines.
pub fn tags(host: usize) -> Arc<HostTags> {
    Arc::new(HostTags::new(&format!("host{host}"), []))
}

/// The `number`-th sample of a host.
pub fn sample(host: usize, number: u64, time_ms: i64, total: Option<u64>) -> Sample {
    let swap = Swap {
        total: total.unwrap_or(1 << 40 | (host as u64) << 32 | number),
        free: number,
        bytes_in: Some(host as u64),
        bytes_out: Some(time_ms as u64 & 0xffff_ffff),
    };
    let mut sections = vec![Section::Swap(swap)];
    if number.is_multiple_of(3) {
        sections.push(Section::System(System {
            n_cpus: 1 + host as u32,
            uptime: number,
            ..System::default()
        }));
    }
    Sample { time_ms, sections: List::first(sections).0 }
}

/// Its lines, each without the newline.
pub fn lines(host: usize, sample: &Sample) -> Vec<String> {
    let mut out = Vec::new();
    write_sample(&mut out, &tags(host), sample);
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}
