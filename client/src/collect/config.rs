//! What is read, how often, and what is left out.

use std::time::Duration;

use serde::Deserialize;

use super::pattern::matches_any;

/// The collectors' configuration: the table `[collect]` of the client's file.
///
/// A list that is given replaces the default one. Its entries are names in which `*` stands for any characters, none
/// included.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectConfig {
    /// Where figures come from.
    pub back_end: BackEnd,
    /// File systems of these types are left out. Default: pseudo, network and FUSE file systems, and images.
    pub exclude_file_system_types: Vec<String>,
    /// File systems mounted here are left out. Default: mounts of containers, of the kubelet and of snaps.
    pub exclude_mount_points: Vec<String>,
    /// Disks and partitions of these names are left out. Default: loop, RAM and compressed RAM devices, floppy and
    /// optical drives, network block devices. Those that have no size and never did anything do not appear.
    pub exclude_disks: Vec<String>,
    /// Interfaces of these names are left out. Default: virtual Ethernet pairs and bridges of container networks.
    /// Loopback and interfaces that are down never appear.
    pub exclude_interfaces: Vec<String>,
    /// Seconds between two walks over all processes, which count them by state and find the top ones; 0 for none.
    /// Default 30.
    pub process_walk_interval: u32,
    /// Whether temperature sensors are read. Default true.
    pub temperatures: bool,
    /// How long a call that may block (`statvfs`, a sensor) is waited for, in ms: 100 to 10,000. Default 1,000.
    pub read_deadline_ms: u32,
}

/// Where figures come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackEnd {
    /// `procfs` on Linux, `sysinfo` elsewhere.
    #[default]
    Auto,
    /// Linux' own files below `/proc` and `/sys`.
    Procfs,
    /// The `sysinfo` crate: fewer figures, more systems.
    Sysinfo,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectConfigError {
    /// The deadline is out of bounds.
    #[error("collect.read_deadline_ms is {0}; it must be 100 to 10000")]
    ReadDeadline(u32),
    /// `procfs` was asked for where there is none.
    #[error("collect.back_end = \"procfs\" works on Linux only; use \"auto\" or \"sysinfo\"")]
    NoProcfs,
}

const FILE_SYSTEM_TYPES: &[&str] = &[
    // Pseudo file systems and those in memory.
    "autofs",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup*",
    "configfs",
    "debugfs",
    "devfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "none",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "resctrl",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    // Layers over other file systems, and images, which are always full.
    "aufs",
    "cramfs",
    "ecryptfs",
    "erofs",
    "iso9660",
    "overlay",
    "squashfs",
    "udf",
    // Network.
    "9p",
    "afs",
    "beegfs*",
    "ceph",
    "cifs",
    "coda",
    "davfs",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "nfsd",
    "ocfs2",
    "orangefs",
    "smb*",
    "vboxsf",
    "virtiofs",
    "vmhgfs",
    // User space. `fuseblk` stays: it is a local disk, as with NTFS.
    "fuse",
    "fuse.*",
];

const MOUNT_POINTS: &[&str] = &[
    "/dev/*",
    "/proc/*",
    "/sys/*",
    "/run/containerd/*",
    "/run/docker/*",
    "/run/netns/*",
    "/var/lib/containerd/*",
    "/var/lib/containers/*",
    "/var/lib/docker/*",
    "/var/lib/kubelet/*",
    "/var/lib/rancher/*",
    "/snap/*",
    "/var/snap/*",
    "/var/lib/snapd/*",
    // What container engines bind into each container.
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
];

const DISKS: &[&str] = &["loop*", "ram*", "zram*", "fd*", "sr*", "nbd*"];

const INTERFACES: &[&str] = &["veth*", "br-*", "cali*", "cilium_*", "lxc*", "docker_gwbridge", "vnet*"];

/// Types whose server may be gone: `statvfs` on them is the likeliest to hang, so they are asked last.
const MAY_HANG: &[&str] = &[
    "9p",
    "afs",
    "beegfs*",
    "ceph",
    "cifs",
    "coda",
    "davfs",
    "fuse*",
    "glusterfs",
    "lustre",
    "nfs*",
    "smb*",
];

impl Default for CollectConfig {
    fn default() -> Self {
        let owned = |list: &[&str]| list.iter().map(|&entry| entry.to_owned()).collect();
        Self {
            back_end: BackEnd::Auto,
            exclude_file_system_types: owned(FILE_SYSTEM_TYPES),
            exclude_mount_points: owned(MOUNT_POINTS),
            exclude_disks: owned(DISKS),
            exclude_interfaces: owned(INTERFACES),
            process_walk_interval: 30,
            temperatures: true,
            read_deadline_ms: 1000,
        }
    }
}

impl CollectConfig {
    /// Checks what types alone cannot.
    pub fn check(&self) -> Result<(), CollectConfigError> {
        if !(100..=10_000).contains(&self.read_deadline_ms) {
            return Err(CollectConfigError::ReadDeadline(self.read_deadline_ms));
        }
        if self.back_end == BackEnd::Procfs && !cfg!(target_os = "linux") {
            return Err(CollectConfigError::NoProcfs);
        }
        Ok(())
    }

    /// How long a call that may block is waited for.
    pub fn read_deadline(&self) -> Duration {
        Duration::from_millis(u64::from(self.read_deadline_ms))
    }

    /// Time between two walks over processes, unless they are switched off.
    pub fn walk_interval(&self) -> Option<Duration> {
        (self.process_walk_interval > 0).then(|| Duration::from_secs(self.process_walk_interval.into()))
    }

    pub(super) fn wants_file_system(&self, fstype: &str, path: &str) -> bool {
        !matches_any(&self.exclude_file_system_types, fstype)
            && !matches_any(&self.exclude_mount_points, path)
    }

    pub(super) fn wants_disk(&self, name: &str) -> bool {
        !matches_any(&self.exclude_disks, name)
    }

    pub(super) fn wants_interface(&self, name: &str) -> bool {
        !matches_any(&self.exclude_interfaces, name)
    }
}

/// Whether the file system's server, or the process behind it, may be gone.
pub(super) fn may_hang(fstype: &str) -> bool {
    matches_any(MAY_HANG, fstype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_is_the_default_and_a_list_replaces_its_default() {
        let config: CollectConfig = toml::from_str("").unwrap();
        assert_eq!(config, CollectConfig::default());
        let config: CollectConfig =
            toml::from_str("exclude_disks = [\"sd*\"]\nback_end = \"sysinfo\"\nprocess_walk_interval = 0")
                .unwrap();
        assert!(config.wants_disk("loop0") && !config.wants_disk("sda1"));
        assert_eq!((config.back_end, config.walk_interval()), (BackEnd::Sysinfo, None));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = toml::from_str::<CollectConfig>("exclude_disk = []").unwrap_err().to_string();
        assert!(error.contains("exclude_disk") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn a_deadline_out_of_bounds_is_refused() {
        let config = CollectConfig { read_deadline_ms: 0, ..CollectConfig::default() };
        assert_eq!(config.check(), Err(CollectConfigError::ReadDeadline(0)));
        assert_eq!(CollectConfig::default().check(), Ok(()));
    }

    #[test]
    fn the_default_lists_leave_out_what_is_no_disk_of_this_host() {
        let config = CollectConfig::default();
        for (fstype, path) in [
            ("tmpfs", "/run"),
            ("cgroup2", "/sys/fs/cgroup"),
            ("nfs4", "/home"),
            ("fuse.sshfs", "/mnt"),
            ("overlay", "/var/lib/docker/overlay2/x/merged"),
            ("ext4", "/var/lib/kubelet/pods/1/volumes/x"),
            ("ext4", "/etc/hosts"),
        ] {
            assert!(!config.wants_file_system(fstype, path), "{fstype} at {path}");
        }
        for (fstype, path) in
            [("ext4", "/"), ("xfs", "/var/lib/docker"), ("fuseblk", "/mnt/ntfs"), ("btrfs", "/home")]
        {
            assert!(config.wants_file_system(fstype, path), "{fstype} at {path}");
        }
        for name in ["veth1a2b", "br-0123", "loop0"] {
            assert!(!(config.wants_interface(name) && config.wants_disk(name)), "{name}");
        }
        for name in ["eth0", "docker0", "br0", "wlan0", "enp3s0"] {
            assert!(config.wants_interface(name), "{name}");
        }
    }
}
