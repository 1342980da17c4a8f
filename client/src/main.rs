//! Vitals' client: samples one host and streams it to a Vitals server.

fn main() -> std::process::ExitCode {
    no_core_dumps();
    vitals_client::cli::main()
}

/// A crash leaves no memory on disk: secrets stand in it. On Linux one byte, and not none: a file is not begun for so
/// little, and where cores go to a program it is the limit at which the kernel sends nothing (`core(5)`, `do_coredump`).
/// What may be looked at of the running process stays so, since that is how its memory is measured.
fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let most = Some(if cfg!(target_os = "linux") { 1 } else { 0 });
    // Where even this is refused, there is nothing else to do: the log is not there yet.
    let _ = setrlimit(Resource::Core, Rlimit { current: most, maximum: most });
}
