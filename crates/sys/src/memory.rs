//! How this process uses memory, and in which units the kernel does.

use std::io;

/// Keeps the kernel from backing this process's memory with 2 MiB pages, whoever asks for them. mimalloc does, for every
/// thread's arena: an idle agent then takes 27 MiB instead of 9 (measured).
pub fn avoid_huge_pages() -> io::Result<()> {
    Ok(nix::sys::prctl::set_thp_disable(true)?)
}

/// The kernel's page size in bytes.
pub fn page_bytes() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(4096)
}
