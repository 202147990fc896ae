//! What a process has mapped of its own program.
#![expect(
    unsafe_code,
    reason = "walking what is loaded and madvise are C functions"
)]

use std::ffi::c_void;

/// Lets go of the program's pages that have been read so far: most were needed to start, and
/// never again. What is used again comes back as it is, without a copy and mostly without a disk.
pub fn let_go_of_start() {
    // SAFETY: the function is called with what is loaded, before this one returns.
    unsafe {
        libc::dl_iterate_phdr(Some(let_go), std::ptr::null_mut());
    }
}

/// For the first object alone, which is the program.
///
/// # Safety
///
/// `object` describes an object that is loaded.
unsafe extern "C" fn let_go(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> libc::c_int {
    const DONE: libc::c_int = 1;
    // SAFETY: by the contract, and the loader keeps the headers as long as the object.
    let (base, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, count);
        (object.dlpi_addr, headers)
    };
    // Not those that were written to, be it by the loader alone: their content would be lost.
    let read_only = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0);
    for header in read_only {
        let Some((start, length)) = pages(base + header.p_vaddr, header.p_memsz, page_size())
        else {
            continue;
        };
        // SAFETY: the pages are the program's file, unchanged, and read from there again. Where it
        // is refused, they stay.
        unsafe {
            libc::madvise(start as *mut c_void, length, libc::MADV_DONTNEED);
        }
    }
    DONE
}

/// Whole pages within a segment: where the first begins, and their bytes.
fn pages(start: u64, length: u64, page: u64) -> Option<(usize, usize)> {
    let end = start.checked_add(length)? / page * page;
    let start = start.checked_next_multiple_of(page)?;
    let length = end.checked_sub(start)?;
    Some((start.try_into().ok()?, length.try_into().ok()?))
}

fn page_size() -> u64 {
    // SAFETY: it takes a number and returns one.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes of the program's file that are mapped.
    fn mapped() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("readable");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssFile:"));
        let mut words = line.expect("a line").split_ascii_whitespace();
        words
            .next()
            .and_then(|word| word.parse().ok())
            .expect("a number")
    }

    #[test]
    fn what_was_read_is_let_go_and_comes_back() {
        let before = mapped();
        let_go_of_start();
        let after = mapped();
        assert!(after < before, "{before} kB before, {after} after");
        // Code, tables and constants are what they were.
        assert_eq!(format!("{:?}", Some(1.5)), "Some(1.5)");
        std::panic::catch_unwind(|| panic!("unwinds")).expect_err("a panic");
    }

    #[test]
    fn only_whole_pages_count() {
        assert_eq!(pages(0, 8192, 4096), Some((0, 8192)));
        assert_eq!(pages(100, 8192, 4096), Some((4096, 4096)));
        assert_eq!(pages(100, 1000, 4096), None);
        assert_eq!(pages(u64::MAX - 10, 100, 4096), None);
    }
}
