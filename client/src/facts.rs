//! What rarely changes about this host, told once a connection.

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use vitals_wire::bounded::Text;
use vitals_wire::message::Facts;

/// The facts of this host; what cannot be found out is absent. Reads a few files, so ask once.
pub fn facts() -> Facts {
    let wanted = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let host = System::new_with_specifics(wanted).ok();
    let cpus = host.as_ref().map(|host| host.cpus().len() as u32).filter(|&cpus| cpus > 0);
    let model = host.as_ref().and_then(|host| host.cpus().first()).map(|cpu| cpu.brand().to_owned());
    let memory = host.as_ref().map(System::total_memory).filter(|&bytes| bytes > 0);
    Facts {
        os: os().and_then(text),
        kernel: System::kernel_version().ok().and_then(text),
        architecture: text(System::cpu_arch()),
        cpu_model: model.and_then(text),
        cpus,
        memory,
        boot_time: System::boot_time().ok().and_then(|time| time.try_into().ok()),
    }
}

/// The host's own name for itself, if it has one.
pub fn host_name() -> Option<String> {
    System::host_name().ok().filter(|name| !name.trim().is_empty())
}

/// `PRETTY_NAME` of a Linux distribution says it as its users do.
fn os() -> Option<String> {
    let release =
        ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| std::fs::read_to_string(path).ok());
    release.as_deref().and_then(pretty_name).or_else(|| System::long_os_version().ok())
}

fn pretty_name(release: &str) -> Option<String> {
    let value = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let name = value.trim().trim_matches(['"', '\'']);
    (!name.is_empty()).then(|| name.to_owned())
}

fn text<const MAX: usize>(fact: String) -> Option<Text<MAX>> {
    let printable: String = fact.trim().chars().filter(|c| !c.is_control()).collect();
    (!printable.is_empty()).then(|| Text::cut(&printable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_named_as_its_users_do() {
        let release = "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(pretty_name(release).as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!((pretty_name("PRETTY_NAME=\"\"\n"), pretty_name("")), (None, None));
    }

    #[test]
    fn facts_of_this_host_are_found() {
        let facts = facts();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(facts.kernel.as_deref(), Some(kernel.trim()));
        assert!(facts.cpus.is_some() && facts.memory.is_some_and(|bytes| bytes > 1 << 26), "{facts:?}");
        assert!(facts.os.is_some() && facts.boot_time.is_some(), "{facts:?}");
    }
}
