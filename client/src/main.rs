//! Vitals' client: samples one host and streams it to a Vitals server.

fn main() -> std::process::ExitCode {
    vitals_client::cli::main()
}
