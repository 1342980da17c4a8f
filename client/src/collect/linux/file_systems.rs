//! Space of mounted file systems: `/proc/self/mountinfo`, and `statvfs` on the thread for calls that may block.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vitals_wire::bounded::{List, Text};
use vitals_wire::section::{FileSystem, FileSystems, Inodes};

use super::super::config::may_hang;
use super::super::slow::{Answer, SlowItem, SlowReads, Space};
use super::super::{CollectConfig, Collector, Counters, Reading, Roots, Setup};
use super::file::HeldFile;
use super::mounts::{self, Mount};

pub(super) struct FileSystemsCollector {
    config: CollectConfig,
    roots: Roots,
    counters: Arc<Counters>,
    mountinfo: HeldFile,
    /// What `known` was made from: the text rarely changes, and comparing is cheaper than parsing.
    text: Vec<u8>,
    known: Vec<Known>,
    /// Mounts whose paths are no text, or too long.
    unfit: usize,
}

struct Known {
    mount: Mount,
    device: String,
    space: Arc<SlowItem>,
}

impl FileSystemsCollector {
    pub(super) fn new(setup: &Setup<'_>) -> Self {
        // Another host's `/proc`, as seen from a container: the mounts are those of its first process.
        let own = setup.roots.proc == Path::new("/proc");
        Self {
            config: setup.config.clone(),
            roots: setup.roots.clone(),
            counters: setup.counters.clone(),
            mountinfo: HeldFile::new(setup.roots.proc.join(if own {
                "self/mountinfo"
            } else {
                "1/mountinfo"
            })),
            text: Vec::new(),
            known: Vec::new(),
            unfit: 0,
        }
    }

    /// Takes over a changed mount table; calls that go on keep their state.
    fn update(&mut self, slow: &mut SlowReads) {
        let config = &self.config;
        let wanted = |mount: &Mount| config.wants_file_system(&mount.fstype, &mount.path.to_string_lossy());
        let mut old: HashMap<(PathBuf, Box<str>), Known> = std::mem::take(&mut self.known)
            .into_iter()
            .map(|known| ((known.mount.path.clone(), known.mount.device_numbers.clone()), known))
            .collect();
        self.unfit = 0;
        for mount in mounts::parse(&self.text, wanted) {
            if mount.sent_path().is_none() {
                self.unfit += 1;
                continue;
            }
            let known = match old.remove(&(mount.path.clone(), mount.device_numbers.clone())) {
                Some(known) => Known { mount, ..known },
                None => {
                    let path = mount.path.clone();
                    let name = path.display().to_string();
                    let space = slow.add(name, may_hang(&mount.fstype), move || statvfs(&path));
                    Known { device: device_name(&mount, &self.roots), mount, space }
                }
            };
            self.known.push(known);
        }
    }
}

impl Collector for FileSystemsCollector {
    fn prepare(&mut self, slow: &mut SlowReads, rescan: bool) {
        // The kernel tells when something was mounted, but not when an error made a file system read-only.
        if !rescan && !self.mountinfo.has_changed() {
            return;
        }
        let Some(text) = self.mountinfo.read() else {
            self.text.clear();
            self.known.clear();
            self.unfit = 0;
            return;
        };
        if text != self.text {
            self.text.clear();
            self.text.extend_from_slice(text);
            self.update(slow);
        }
    }

    fn collect(&mut self, reading: &mut Reading<'_>) {
        self.counters.leave_out("file systems without a path that can be sent", self.unfit);
        let read: Vec<FileSystem> = self.known.iter().filter_map(Known::file_system).collect();
        if read.is_empty() {
            return;
        }
        let (file_systems, left_out) = List::first(read);
        self.counters.leave_out("file systems", left_out);
        reading.sections.push(FileSystems { file_systems }.into());
    }
}

impl Known {
    /// `None` without an answer, and for file systems without space of their own.
    fn file_system(&self) -> Option<FileSystem> {
        let Some(Answer::Space(space)) = self.space.take() else { return None };
        if space.total == 0 {
            return None;
        }
        Some(FileSystem {
            device: Text::cut(&self.device),
            path: Text::cut(self.mount.sent_path()?),
            fstype: Text::cut(&self.mount.fstype),
            read_only: self.mount.read_only,
            total: space.total,
            free: space.free_for_all,
            used: space.total.saturating_sub(space.free),
            // Some, such as btrfs, make inodes as they need them.
            inodes: (space.inodes > 0).then_some(Inodes { total: space.inodes, free: space.inodes_free }),
        })
    }
}

fn statvfs(path: &Path) -> Answer {
    match rustix::fs::statvfs(path) {
        Ok(stat) => Answer::Space(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_for_all: stat.f_bavail.saturating_mul(stat.f_frsize),
            free: stat.f_bfree.saturating_mul(stat.f_frsize),
            inodes: stat.f_files,
            inodes_free: stat.f_ffree,
        }),
        Err(_) => Answer::Failed,
    }
}

/// The device without `/dev/`, by the name that `diskio` has for it: links of the device mapper and `/dev/root` are
/// followed, as Telegraf does.
fn device_name(mount: &Mount, roots: &Roots) -> String {
    let is_alias = mount.source == "/dev/root" || mount.source.starts_with("/dev/mapper/");
    let by_numbers = || {
        let link: PathBuf = roots.sys.join("dev/block").join(&*mount.device_numbers);
        Some(std::fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
    };
    let resolved = if is_alias { by_numbers() } else { None };
    resolved.unwrap_or_else(|| mount.source.strip_prefix("/dev/").unwrap_or(&mount.source).to_owned())
}
