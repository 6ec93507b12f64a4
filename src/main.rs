//! The program: everything is in the library.

use std::process::ExitCode;

// Arrow buffers come and go by the megabyte: jemalloc gives their memory back, where the system's allocator keeps it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    alluvium::cli::main()
}
