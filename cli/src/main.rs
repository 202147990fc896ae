//! The `weft` program: everything is in the library.
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
