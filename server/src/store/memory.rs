//! What is not in the file yet, shared by the store's thread, which alone changes it, and by readers.

use std::collections::HashMap;
use std::sync::Arc;

use vitals_wire::ids::HostId;
use vitals_wire::log::Position;

use super::db::StoredEvent;
use super::layout::Layout;
use super::rows::Rows;

/// The newest samples of all hosts, and events that wait for the next transaction.
#[derive(Debug, Default)]
pub(super) struct Memory {
    numbers: HashMap<HostId, u32>,
    /// By number.
    pub hosts: Vec<HostMemory>,
    pub events: Vec<StoredEvent>,
    /// The place in the journal up to which samples were taken in.
    pub position: Position,
    /// About the bytes that `hosts` takes for samples.
    pub bytes: usize,
}

/// One host's part.
#[derive(Debug)]
pub(super) struct HostMemory {
    pub id: HostId,
    /// One for each hour that samples came for since the last sealing.
    pub open: Vec<Rows>,
    /// The newest sample since the start.
    pub newest_ms: Option<i64>,
    /// That of the sample that came last.
    pub layout: Option<Arc<Layout>>,
    /// For the next rows.
    spare: Vec<u8>,
}

impl Memory {
    /// Adds a host and gives its number.
    pub(super) fn add(&mut self, id: HostId) -> u32 {
        let number = self.hosts.len() as u32;
        self.numbers.insert(id, number);
        self.hosts.push(HostMemory {
            id,
            open: Vec::new(),
            newest_ms: None,
            layout: None,
            spare: Vec::new(),
        });
        number
    }

    pub(super) fn number(&self, id: HostId) -> Option<u32> {
        self.numbers.get(&id).copied()
    }

    /// Lets go of a host's samples, which are in the file now.
    pub(super) fn sealed(&mut self, host: u32) {
        let Some(host) = self.hosts.get_mut(host as usize) else { return };
        for rows in host.open.drain(..) {
            self.bytes = self.bytes.saturating_sub(rows.memory());
            let spare = rows.into_spare();
            if spare.capacity() > host.spare.capacity() {
                host.spare = spare;
            }
        }
        // Most hosts have one hour open; a list that once held more is not worth keeping.
        host.open.shrink_to(1);
    }

    /// The place of the journal before which no sample is in memory only.
    pub(super) fn oldest(&self, leave_out: impl Fn(u32) -> bool) -> Option<Position> {
        let kept = self.hosts.iter().enumerate().filter(|(number, _)| !leave_out(*number as u32));
        kept.flat_map(|(_, host)| host.open.iter().map(|rows| rows.first)).min()
    }
}

impl HostMemory {
    /// The place of the rows for an hour.
    pub(super) fn rows_of(&mut self, hour: i64, first: Position) -> usize {
        // The newest is nearly always the one.
        if let Some(found) = self.open.iter().rposition(|rows| rows.hour == hour) {
            return found;
        }
        let spare = std::mem::take(&mut self.spare);
        self.open.reserve_exact(1);
        self.open.push(Rows::new(hour, first, spare));
        self.open.len() - 1
    }
}
