//! A file system in memory that loses what was not synced: for tests that pull the plug between any two system calls.
//!
//! It behaves as Linux with a strict file system does: what one process wrote every other sees at once; a file's bytes
//! are on disk after [`AppendFile::sync`], its name after [`Fs::sync_dir`]. A kill keeps all that was written, a crash
//! what was synced and, at random, some of the rest. Directories are on disk as soon as they are made.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

use super::fs::{AppendFile, Fs, ReadFile, new_name};

const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// Bytes that a disk writes at once: a crash leaves such pieces whole, or zeros in their place.
const SECTOR_BYTES: usize = 512;
/// How far from the end of a file a crash leaves holes at most.
const TORN_BYTES: usize = 8192;

/// What fails, and for how long: until it is changed. None of it by default.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Bytes of all files together. What an append has no room for is not written, and it fails (ENOSPC), as does making
    /// a file on a full disk.
    pub capacity: Option<u64>,
    /// Nothing can be changed (EROFS).
    pub read_only: bool,
    /// No file can be opened, made, cut, removed or replaced and no directory be listed (EACCES). Files that are open
    /// already work as before.
    pub denied: bool,
    /// Syncs of files fail (EIO). As in Linux the next one succeeds although what this one had to write is lost.
    pub sync_fails: bool,
    /// Syncs of directories fail (EIO).
    pub sync_dir_fails: bool,
    /// Reads that begin at these bytes of any file fail (EIO).
    pub unreadable: Range<u64>,
}

/// The file system. Clones are the same one.
#[derive(Debug, Clone)]
pub struct ModelFs(Arc<Mutex<State>>);

type Node = Arc<Mutex<Inode>>;

#[derive(Debug)]
struct State {
    /// Files as processes see them.
    names: BTreeMap<PathBuf, Node>,
    /// Files whose names are on disk.
    durable: BTreeMap<PathBuf, Node>,
    /// How the one becomes the other, in order.
    pending: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    faults: Faults,
    rng: Rng,
    calls: u64,
    /// Calls that still succeed until the process dies.
    left: Option<u64>,
    is_dead: bool,
    /// Grows whenever processes die; handles from before are of no use.
    boot: u64,
}

#[derive(Debug, Clone)]
enum NameChange {
    Put(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, Node),
}

#[derive(Debug, Default)]
struct Inode {
    /// What processes see.
    content: Vec<u8>,
    /// What is on disk.
    disk: Vec<u8>,
    /// Bytes at the beginning that are the same in both for sure.
    same: usize,
    /// What a failed sync should have written: no later one does.
    lost: Vec<Range<usize>>,
}

#[derive(Debug)]
struct Handle {
    state: Arc<Mutex<State>>,
    node: Node,
    boot: u64,
}

impl ModelFs {
    /// An empty one. What is random before a crash, such as how much of an append a dying process still wrote, follows
    /// from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            names: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            dirs: BTreeSet::new(),
            faults: Faults::default(),
            rng: Rng::with_seed(seed),
            calls: 0,
            left: None,
            is_dead: false,
            boot: 0,
        })))
    }

    /// Power loss. Of what was not synced each file keeps a random part of what was appended, whole or with holes of
    /// zeros at its end; each change of a directory survives or not. Handles from before fail from now on; who used them
    /// must be dropped. [`stop_after`](Self::stop_after) is over, other faults stay.
    pub fn crash(&self, rng: &mut Rng) {
        let mut state = self.lock();
        let pending = std::mem::take(&mut state.pending);
        // A journal loses the newest changes; without one any may be lost.
        let in_order = rng.bool();
        let keep = if in_order { rng.usize(..=pending.len()) } else { pending.len() };
        for change in pending.into_iter().take(keep) {
            if in_order || rng.bool() {
                change.apply(&mut state.durable);
            }
        }
        for node in state.durable.values() {
            lock(node).crash(rng);
        }
        state.names = state.durable.clone();
        state.reboot();
    }

    /// The process is killed: nothing is lost that was written. Handles from before fail from now on, and
    /// [`stop_after`](Self::stop_after) is over.
    pub fn kill(&self) {
        self.lock().reboot();
    }

    /// The `n`-th call from now, counted from 1, and all after it fail, as if the process had died there: if it is an
    /// append, a random part of it is still written. Until [`kill`](Self::kill) or [`crash`](Self::crash).
    pub fn stop_after(&self, n: u64) {
        self.lock().left = Some(n.saturating_sub(1));
    }

    /// Whether [`stop_after`](Self::stop_after) has struck.
    pub fn is_stopped(&self) -> bool {
        self.lock().is_dead
    }

    /// Calls so far, those that failed included. `replace` is five.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Changes what fails.
    pub fn fail(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    /// All files as processes see them, with their lengths, sorted.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.lock().names.iter().map(|(path, node)| (path.clone(), lock(node).content.len() as u64)).collect()
    }

    /// Content of a file as processes see it, whatever fails.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.lock().names.get(path).map(|node| lock(node).content.clone())
    }

    /// Flips a bit of a file, on disk too; false when it has no such bit.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> bool {
        let state = self.lock();
        let Some(node) = state.names.get(path) else { return false };
        let mut node = lock(node);
        let (at, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        let same = at < node.same;
        let flipped = node.content.get_mut(at).map(|byte| *byte ^= mask).is_some();
        if let (true, Some(byte)) = (same, node.disk.get_mut(at)) {
            *byte ^= mask;
        }
        flipped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn handle(&self, state: &State, node: &Node) -> Handle {
        Handle { state: self.0.clone(), node: node.clone(), boot: state.boot }
    }
}

/// No holder leaves anything half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fails(when: bool, code: i32) -> io::Result<()> {
    if when { Err(io::Error::from_raw_os_error(code)) } else { Ok(()) }
}

fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

impl State {
    fn reboot(&mut self) {
        self.boot += 1;
        self.left = None;
        self.is_dead = false;
    }

    /// Every call begins here.
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        self.is_dead |= self.left == Some(0);
        self.left = self.left.map(|left| left.saturating_sub(1));
        if self.is_dead { Err(dead()) } else { Ok(()) }
    }

    /// A call that changes something by a path.
    fn change(&mut self) -> io::Result<()> {
        self.call()?;
        fails(self.faults.denied, EACCES)?;
        fails(self.faults.read_only, EROFS)
    }

    /// A call that only reads, by a path.
    fn look(&mut self) -> io::Result<()> {
        self.call()?;
        fails(self.faults.denied, EACCES)
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        self.names.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn has_parent(&self, path: &Path) -> io::Result<()> {
        let known = path.parent().is_some_and(|dir| self.dirs.contains(dir));
        if known { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Bytes that are free.
    fn free(&self) -> u64 {
        let used = || self.names.values().map(|node| lock(node).content.len() as u64).sum();
        self.faults.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used()))
    }

    fn name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn append(&mut self, node: &Node, bytes: &[u8]) -> io::Result<()> {
        let was_dead = self.is_dead;
        let mut done = self.call();
        fails(self.faults.read_only, EROFS)?;
        let mut room = self.free().min(bytes.len() as u64) as usize;
        if self.is_dead {
            room = if was_dead { 0 } else { self.rng.usize(..=room) };
        } else if room < bytes.len() {
            done = fails(true, ENOSPC);
        }
        lock(node).content.extend_from_slice(&bytes[..room]);
        done
    }

    fn sync(&mut self, node: &Node) -> io::Result<()> {
        self.call()?;
        let mut node = lock(node);
        fails(self.faults.read_only && !node.is_clean(), EROFS)?;
        if self.faults.sync_fails {
            node.lose();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        node.sync();
        Ok(())
    }

    fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.look()?;
        fails(self.faults.sync_dir_fails, EIO)?;
        let (here, elsewhere) =
            std::mem::take(&mut self.pending).into_iter().partition(|change| change.dir() == Some(dir));
        self.pending = elsewhere;
        let here: Vec<NameChange> = here;
        here.into_iter().for_each(|change| change.apply(&mut self.durable));
        Ok(())
    }
}

impl NameChange {
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Put(path, _) | Self::Remove(path) | Self::Rename(_, path, _) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Put(path, node) => {
                names.insert(path.clone(), node.clone());
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), node.clone());
            }
        }
    }
}

impl Inode {
    fn is_clean(&self) -> bool {
        self.same == self.content.len() && self.same == self.disk.len()
    }

    fn cut(&mut self, len: u64) {
        let len = len as usize;
        if len >= self.content.len() {
            return;
        }
        self.content.truncate(len);
        self.same = self.same.min(len);
        self.lost.retain_mut(|lost| {
            lost.end = lost.end.min(len);
            lost.start < lost.end
        });
    }

    fn sync(&mut self) {
        self.disk.truncate(self.same);
        self.disk.extend_from_slice(&self.content[self.same..]);
        for lost in &self.lost {
            self.disk[lost.clone()].fill(0);
        }
        self.same = self.lost.first().map_or(self.content.len(), |lost| lost.start);
    }

    /// A sync failed: what it had to write counts as written.
    fn lose(&mut self) {
        let end = self.lost.last().map_or(self.same, |lost| lost.end);
        if end < self.content.len() {
            self.lost.push(end..self.content.len());
        }
    }

    fn crash(&mut self, rng: &mut Rng) {
        let was_cut = self.disk.len() > self.same;
        // Either the cut has not reached the disk, and nothing after it, or it has.
        let mut survives = if was_cut && rng.bool() {
            std::mem::take(&mut self.disk)
        } else {
            let tail = self.content.len() - self.same;
            let keep = self.same + rng.usize(..=tail);
            let mut survives = self.content[..keep].to_vec();
            for lost in &self.lost {
                survives[lost.start.min(keep)..lost.end.min(keep)].fill(0);
            }
            let torn_from = self.same.max(keep.saturating_sub(rng.usize(..TORN_BYTES)));
            match rng.u8(..3) {
                0 => survives[torn_from..].fill(0),
                1 => survives[torn_from..]
                    .chunks_mut(SECTOR_BYTES)
                    .filter(|_| rng.bool())
                    .for_each(|s| s.fill(0)),
                _ => {}
            }
            survives
        };
        survives.shrink_to_fit();
        self.same = survives.len();
        self.disk.clone_from(&survives);
        self.content = survives;
        self.lost.clear();
    }
}

impl Fs for ModelFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.look()?;
        if !state.dirs.contains(dir) {
            fails(state.faults.read_only, EROFS)?;
            state.dirs.extend(dir.ancestors().map(Path::to_owned));
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let mut state = self.lock();
        state.look()?;
        state.has_parent(&dir.join("any"))?;
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let named = inside.filter_map(|(path, node)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some((name, lock(node).content.len() as u64))
        });
        Ok(named.collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let mut state = self.lock();
        state.change()?;
        state.has_parent(path)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fails(state.free() == 0, ENOSPC)?;
        let node = Node::default();
        state.name(NameChange::Put(path.to_owned(), node.clone()));
        Ok(Box::new(self.handle(&state, &node)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let mut state = self.lock();
        state.look()?;
        let node = state.node(path)?;
        Ok(Box::new(self.handle(&state, &node)))
    }

    fn cut(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        let node = state.node(path)?;
        lock(&node).cut(len);
        state.sync(&node)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        state.node(path)?;
        state.name(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.lock().sync_dir(dir)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.lock();
        state.look()?;
        let node = state.node(path)?;
        let content = lock(&node).content.clone();
        let unreadable = &state.faults.unreadable;
        fails(unreadable.start < unreadable.end.min(content.len() as u64), EIO)?;
        Ok(content)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = new_name(path);
        let mut state = self.lock();
        state.change()?;
        state.has_parent(path)?;
        let node = match state.names.get(&new).cloned() {
            Some(node) => {
                lock(&node).cut(0);
                node
            }
            None => {
                fails(state.free() == 0, ENOSPC)?;
                let node = Node::default();
                state.name(NameChange::Put(new.clone(), node.clone()));
                node
            }
        };
        state.append(&node, bytes)?;
        state.sync(&node)?;
        state.change()?;
        state.name(NameChange::Rename(new, path.to_owned(), node));
        // `has_parent` found it.
        path.parent().map_or(Ok(()), |dir| state.sync_dir(dir))
    }
}

impl Handle {
    /// The state, if the process that has this handle still lives.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        if state.boot == self.boot { Ok(state) } else { Err(dead()) }
    }
}

impl AppendFile for Handle {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.state()?.append(&self.node, bytes)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.call()?;
        fails(state.faults.read_only, EROFS)?;
        lock(&self.node).cut(len);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.state()?.sync(&self.node)
    }
}

impl ReadFile for Handle {
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state()?;
        state.call()?;
        let bad = state.faults.unreadable.clone();
        fails(bad.contains(&offset), EIO)?;
        let node = lock(&self.node);
        let mut rest = node.content.get(offset as usize..).unwrap_or_default();
        if offset < bad.start && !bad.is_empty() {
            // As a kernel does: what comes before the bad page is read.
            rest = &rest[..rest.len().min((bad.start - offset) as usize)];
        }
        let read = rest.len().min(into.len());
        into[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }
}

#[cfg(test)]
#[path = "model_fs_tests.rs"]
mod tests;
