//! What is mounted: `/proc/self/mountinfo`.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use vitals_wire::limits::MAX_PATH_BYTES;

use super::scan;

/// One mount that is wanted, and not hidden by a later one at the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Numbers of the device, `MAJOR:MINOR`, which tell doubles of one file system.
    pub device_numbers: Box<str>,
    /// What is mounted, such as `/dev/sda1`.
    pub source: String,
    pub path: PathBuf,
    pub fstype: String,
    /// Of the file system itself, not of this view of it.
    pub read_only: bool,
    /// It shows the file system from its root on.
    is_whole: bool,
}

impl Mount {
    /// The path, where a sample can have it: text that is not too long.
    pub(super) fn sent_path(&self) -> Option<&str> {
        self.path.to_str().filter(|path| path.len() <= MAX_PATH_BYTES)
    }
}

/// Each wanted file system once, ordered by path. Of several mounts of one file system the one that shows all of it is
/// taken, then the one with the shortest path, but first of all one that can be sent: the others are bind mounts or subvolumes with the same figures.
pub(super) fn parse(text: &[u8], is_wanted: impl Fn(&Mount) -> bool) -> Vec<Mount> {
    // What is mounted last hides what was there: from the end on, the first at each place counts. The kernel writes a path
    // in one way only, so that it need not be decoded for that.
    let mut mounts: Vec<(&[u8], Mount)> = scan::lines(text).filter_map(parse_line).collect();
    mounts.reverse();
    let mut seen = HashSet::with_capacity(mounts.len());
    let mut mounts: Vec<Mount> =
        mounts.into_iter().filter(|(path, _)| seen.insert(*path)).map(|(_, mount)| mount).collect();
    mounts.retain(is_wanted);
    mounts.sort_by(|a, b| {
        let rank =
            |mount: &Mount| (mount.sent_path().is_none(), !mount.is_whole, mount.path.as_os_str().len());
        a.device_numbers
            .cmp(&b.device_numbers)
            .then_with(|| rank(a).cmp(&rank(b)))
            .then_with(|| a.path.cmp(&b.path))
    });
    mounts.dedup_by(|later, first| later.device_numbers == first.device_numbers);
    mounts.sort_by(|a, b| a.path.cmp(&b.path));
    mounts
}

/// `36 35 98:0 /root /path rw,noatime master:1 - ext3 /dev/root rw,errors=continue`, with any number of optional fields
/// before the dash. With the path as it stands there.
fn parse_line(line: &[u8]) -> Option<(&[u8], Mount)> {
    let mut words = line.split(|&b| b == b' ');
    let device_numbers = String::from_utf8(words.nth(2)?.to_vec()).ok()?.into();
    let root = words.next()?;
    let escaped_path = words.next()?;
    let path = PathBuf::from(OsString::from_vec(unescape(escaped_path)));
    let mut words = words.skip_while(|&word| word != b"-");
    words.next()?;
    let fstype = text(words.next()?);
    let source = text(words.next()?);
    let read_only = words.next()?.split(|&b| b == b',').any(|option| option == b"ro");
    let mount = Mount { device_numbers, source, path, fstype, read_only, is_whole: root == b"/" };
    Some((escaped_path, mount))
}

fn text(escaped: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(escaped)).into_owned()
}

/// Undoes the kernel's escapes: blanks, tabs, newlines, backslashes and `#` stand as three octal digits.
fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let [first, tail @ ..] = rest {
        let octal = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        plain.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &rest[4..] } else { tail };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[u8] = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro\n\
        30 27 8:1 / /data ro,relatime shared:2 master:3 - xfs /dev/sda1 rw,attr2\n\
        31 27 8:2 / /mnt/my\\040disk\\134x rw - ext4 /dev/sda2 ro,norecovery\n\
        32 27 254:0 /var/lib/x /srv rw - ext4 /dev/vda rw\n\
        33 27 254:0 / /mnt/double rw - ext4 /dev/vda rw\n";

    fn paths(text: &[u8]) -> Vec<String> {
        parse(text, |mount| mount.fstype != "proc").iter().map(|m| m.path.display().to_string()).collect()
    }

    #[test]
    fn each_file_system_appears_once_where_all_of_it_is_mounted() {
        assert_eq!(paths(HOST), ["/", "/data", "/mnt/my disk\\x"]);
    }

    #[test]
    fn the_mode_is_the_superblocks_not_that_of_the_mount() {
        let mounts = parse(HOST, |_| true);
        let read_only = |path: &str| mounts.iter().find(|m| m.path.as_os_str() == path).unwrap().read_only;
        assert!(!read_only("/data"), "mounted ro here, as a hardened unit sees it; the file system is rw");
        assert!(read_only("/mnt/my disk\\x"));
        assert!(!read_only("/"), "errors=remount-ro is not ro");
    }

    #[test]
    fn what_is_mounted_over_hides_what_was_there() {
        let text = b"1 0 8:1 / /a rw - ext4 /dev/sda1 rw\n2 1 0:5 / /a rw - tmpfs tmpfs rw\n";
        let mounts = parse(text, |_| true);
        assert_eq!(mounts.iter().map(|m| &*m.fstype).collect::<Vec<_>>(), ["tmpfs"]);
    }

    #[test]
    fn thousands_of_mounts_are_read_in_no_time() {
        let line = |at: usize| {
            format!("{at} 1 0:{at} / /run/containers/a-long-name/{at}/merged rw - ext4 /dev/x rw\n")
        };
        let text: String = (0..20_000).map(line).collect();
        let started = std::time::Instant::now();
        assert_eq!(parse(text.as_bytes(), |_| true).len(), 20_000);
        assert!(started.elapsed().as_secs() < 3, "{:?}", started.elapsed());
    }

    #[test]
    fn of_two_mounts_of_one_file_system_the_one_with_a_path_that_can_be_sent_is_taken() {
        let text = b"1 0 8:1 / /\xff rw - ext4 /dev/sda1 rw\n2 0 8:1 /x /longer rw - ext4 /dev/sda1 rw\n";
        assert_eq!(paths(text), ["/longer"]);
    }

    #[test]
    fn subvolumes_of_one_file_system_are_one() {
        let text = b"1 0 0:30 /@home /home rw - btrfs /dev/sda1 rw\n2 0 0:30 /@ / rw - btrfs /dev/sda1 rw\n";
        assert_eq!(paths(text), ["/"]);
    }

    #[test]
    fn torn_and_strange_lines_are_passed_over() {
        assert_eq!(paths(b"\n1 2 3\n1 0 8:1 / /a rw\n1 0 8:1 / /b rw - ext4\n- - - - -\n"), [""; 0]);
        assert_eq!(unescape(b"\\04\\999\\"), b"\\04\\999\\");
    }
}
