//! Small disks that can be filled.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate};

/// A file system in memory, unmounted when dropped; or, where none may be mounted, a plain directory that never fills.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    is_mounted: bool,
}

impl SmallDisk {
    /// Mounts one of so many MiB at `path`. Without the rights to, it is a plain directory; with `CI=true` an error.
    pub fn new(path: PathBuf, mib: u32) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&path)?;
        let is_mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=700"), "vitals-chaos"])
            .arg(&path)
            .output()
            .is_ok_and(|output| output.status.success());
        anyhow::ensure!(
            is_mounted || std::env::var("CI").as_deref() != Ok("true"),
            "no small file system can be mounted here, and CI=true"
        );
        Ok(Self { path, is_mounted })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it can be filled.
    pub fn is_mounted(&self) -> bool {
        self.is_mounted
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Fills what is left; again, where something was freed meanwhile.
    pub fn fill(&self) -> io::Result<()> {
        if !self.is_mounted {
            return Ok(());
        }
        let file = File::options().create(true).append(true).open(self.ballast())?;
        let mut length = file.metadata()?.len();
        let mut step: u64 = 64 << 20;
        while step >= 4096 {
            match fallocate(&file, FallocateFlags::empty(), length, step) {
                Ok(()) => length += step,
                Err(_) => step /= 2,
            }
        }
        Ok(())
    }

    /// Gives it free again.
    pub fn free(&self) {
        let _ = std::fs::remove_file(self.ballast());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
    }
}
