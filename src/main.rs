//! The program: everything is in the library.

use std::process::ExitCode;

// Arrow buffers come and go by the megabyte: jemalloc gives their memory back, where the system's allocator keeps it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// It gives back after a tenth of a second, not after ten, as long as it is asked for more: what is kept for later is no part of `memory`.
// SAFETY: jemalloc reads this name at its start, as a pointer to a text that ends with a zero; that is how a slice begins.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8] = b"dirty_decay_ms:100\0";

fn main() -> ExitCode {
    alluvium::cli::main()
}
