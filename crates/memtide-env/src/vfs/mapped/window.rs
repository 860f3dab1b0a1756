//! A window of a file in memory: its map, stores into it, and what becomes of a fault.
//!
//! # Safety model
//! The crate's one module of raw memory. Its functions are safe to call: they take slices and files, and hand out
//! neither a pointer nor a reference into a map.
//! 1. A `Window` owns [`RESERVED`] bytes of addresses from `reserve` to its drop. They are reserved without access;
//!    `map` replaces a part of them by a shared map of a file, never anything outside.
//! 2. A map is only stored into, within `mapped` bytes, by whoever has the window to itself. Nobody reads through
//!    it: the bytes belong to the file, which others may change.
//! 3. A store may fault, if the device fails or someone else cuts the file. The kernel says so by SIGBUS. The handler
//!    asks the table [`SLOTS`] whether the address is a window's, and if so puts a page of zeros there and marks the
//!    slot. The store then completes, and `store` returns an error. Any other fault goes to the handler that was there
//!    before. A slot holds one number, so the handler never sees half a change.
//! 4. The handler uses atomics and system calls alone; it takes no lock and allocates nothing.
//!
//! The tests below cut a file under its map, and let faults of others happen in processes of their own.

use std::fs::File;
use std::io;
use std::mem;
use std::ptr;

use memtide_base::sync::OnceLock;
use memtide_base::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// The most of a file that is mapped at once.
pub(super) const SPAN: usize = 8 << 20;
/// Where a window begins, so that the largest pages of the page cache can be mapped whole.
const ALIGN: usize = 2 << 20;
const RESERVED: usize = SPAN + ALIGN;

/// How many windows a process may have: two for each open database while its log goes on in a new segment.
const WINDOWS_MAX: usize = 64;

/// A window that may fault.
struct Slot {
    /// Its first address; 0 if the slot is free.
    start: AtomicUsize,
    faulted: AtomicBool,
}

static SLOTS: [Slot; WINDOWS_MAX] =
    [const { Slot { start: AtomicUsize::new(0), faulted: AtomicBool::new(false) } }; WINDOWS_MAX];

/// Addresses for a window, and what of a file is mapped there.
pub(super) struct Window {
    reserved: *mut u8,
    base: *mut u8,
    mapped: usize,
    slot: &'static Slot,
    /// A failed map may have left a hole among the addresses, which somebody else may have by now.
    holed: bool,
}

// SAFETY: the addresses are the window's own, and no other thread has them.
unsafe impl Send for Window {}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("mapped", &self.mapped).finish_non_exhaustive()
    }
}

impl Window {
    /// A window onto nothing. `None` if faults would not be told: somebody else handles SIGBUS since, or there are
    /// too many windows; or if there are no addresses.
    pub(super) fn reserve() -> Option<Self> {
        if !is_armed() {
            return None;
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a map at an address that the kernel chooses replaces nothing.
        let reserved =
            unsafe { mmap_anonymous(ptr::null_mut(), RESERVED, ProtFlags::empty(), flags) };
        let reserved = reserved.ok()?.cast::<u8>();
        let base = reserved.wrapping_add(reserved.align_offset(ALIGN));
        let take = |slot: &&Slot| {
            slot.start.compare_exchange(0, base.addr(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let Some(slot) = SLOTS.iter().find(take) else {
            // SAFETY: these addresses were reserved above, for nobody else.
            let _ = unsafe { munmap(reserved.cast(), RESERVED) };
            return None;
        };
        slot.faulted.store(false, Ordering::Relaxed);
        Some(Self { reserved, base, mapped: 0, slot, holed: false })
    }

    /// Maps `len` bytes of the file from `offset` on in place of what was mapped before. `file` is open for reading
    /// and writing, and has these bytes.
    ///
    /// # Errors
    /// The kernel has no room for one more map, and nothing is mapped then, nor can be; or faults would not be told
    /// any more, and what was mapped before still is.
    pub(super) fn map(&mut self, file: &File, offset: u64, len: usize) -> io::Result<()> {
        assert!(len <= SPAN && !self.holed, "{len} bytes do not fit into a window");
        if !is_armed() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.mapped = 0;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: `base` and the `SPAN` bytes behind it are this window's own (1), and nothing refers to them (2).
        let mapped = unsafe { mmap(self.base.cast(), len, protection, flags, file, offset) };
        self.holed = mapped.is_err();
        self.mapped = mapped.map(|_| len)?;
        Ok(())
    }

    /// Stores all of `bytes` from the byte `at` of what is mapped on.
    ///
    /// # Errors
    /// A page of the map faulted, now or before: it is lost, what lies around it may be stored.
    pub(super) fn store(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let fits = at.checked_add(bytes.len()).is_some_and(|end| end <= self.mapped);
        assert!(fits, "{} bytes at {at} of {}", bytes.len(), self.mapped);
        // SAFETY: `mapped` bytes from `base` on are writable and this window's own (1, 2), and a source outside. A
        // page that faults is replaced (3).
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(at), bytes.len()) };
        // The handler runs in this thread, between two of its instructions.
        compiler_fence(Ordering::SeqCst);
        if self.slot.faulted.load(Ordering::Relaxed) { Err(Errno::IO.into()) } else { Ok(()) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // Before the addresses can be somebody else's.
        self.slot.start.store(0, Ordering::Release);
        if !self.holed {
            // SAFETY: the addresses are this window's own (1), and it ends here.
            let _ = unsafe { munmap(self.reserved.cast(), RESERVED) };
        }
    }
}

/// What the handler needs, known before it is installed.
struct Armed {
    before: libc::sigaction,
    page: usize,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Whether a fault in a window is told as an error. The first call installs the handler.
fn is_armed() -> bool {
    let armed = ARMED.get_or_init(|| {
        let before = current()?;
        // SAFETY: it only reads a constant of the system.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        Some(Armed { before, page: usize::try_from(page).ok()? })
    });
    let Some(armed) = armed else { return false };
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    // Whoever has installed a handler since may not pass on what is ours.
    *INSTALLED.get_or_init(|| install(&armed.before))
        && current().is_some_and(|action| action.sa_sigaction == handler_address())
}

fn handler_address() -> usize {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_fault;
    handler as usize
}

/// What the process does at a SIGBUS.
fn current() -> Option<libc::sigaction> {
    // SAFETY: all zeros are a valid action, and one that is only asked for is written.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        (libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut action) == 0).then_some(action)
    }
}

fn install(before: &libc::sigaction) -> bool {
    let mut action = *before;
    action.sa_sigaction = handler_address();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | (before.sa_flags & libc::SA_RESTART);
    // SAFETY: the handler is made for SA_SIGINFO and does what a handler may (4).
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) == 0 }
}

/// What happens at a SIGBUS.
extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let Some(Some(armed)) = ARMED.get() else { return };
    // SAFETY: the kernel gives a handler of this kind what it knows of the signal.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    let is_fault = code > 0;
    let own = SLOTS.iter().find(|slot| {
        // Acquire pairs with the exchange in `reserve` and the store in `drop`.
        let start = slot.start.load(Ordering::Acquire);
        start != 0 && address.wrapping_sub(start) < SPAN
    });
    // Memory that was found broken, and that nobody has asked for, is not a store of ours.
    if let Some(slot) = own.filter(|_| is_fault && code != libc::BUS_MCEERR_AO)
        && mend(slot, address & !(armed.page - 1), armed.page)
    {
        return;
    }
    pass_on(&armed.before, is_fault, signal, info, context);
}

/// Puts a page of zeros where a store faulted, so that it completes.
fn mend(slot: &Slot, page: usize, len: usize) -> bool {
    slot.faulted.store(true, Ordering::Relaxed);
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let address = ptr::with_exposed_provenance_mut(page);
    // SAFETY: the page lies in the window of `slot` (1), and nothing refers to it (2).
    unsafe { mmap_anonymous(address, len, protection, flags) }.is_ok()
}

/// Does what would have happened without this handler.
fn pass_on(
    before: &libc::sigaction,
    is_fault: bool,
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    type Short = extern "C" fn(libc::c_int);
    type Long = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    match before.sa_sigaction {
        // The kernel does not let a fault be ignored.
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: back to what every process begins with. A fault happens once more when this returns; what
            // was sent is sent again, and waits until then.
            unsafe {
                let mut action: libc::sigaction = mem::zeroed();
                action.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const action, ptr::null_mut());
                if !is_fault {
                    libc::raise(signal);
                }
            }
        }
        long if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: it was installed as a handler with three arguments, which are passed on.
            unsafe { mem::transmute::<usize, Long>(long)(signal, info, context) }
        }
        // SAFETY: it was installed as a handler with one argument.
        short => unsafe { mem::transmute::<usize, Short>(short)(signal) },
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus, exit};

    use super::*;

    const CASE: &str = "MEMTIDE_FAULT_CASE";

    fn set_action(handler: usize, flags: libc::c_int) {
        // SAFETY: the handlers below fit their flags.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            (action.sa_sigaction, action.sa_flags) = (handler, flags);
            assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()), 0);
        }
    }

    extern "C" fn short(signal: libc::c_int) {
        exit_with(if signal == libc::SIGBUS { 41 } else { 1 });
    }

    extern "C" fn long(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        // SAFETY: as in `on_fault`.
        let is_given = unsafe { !(*info).si_addr().is_null() } && !context.is_null();
        exit_with(if signal == libc::SIGBUS && is_given { 42 } else { 1 });
    }

    fn exit_with(code: i32) {
        // SAFETY: a handler may end the process.
        unsafe { libc::_exit(code) }
    }

    /// A fault in a map that is no window.
    fn fault_elsewhere() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the map is made here, and a fault in it is what this is about.
        unsafe {
            let page = mmap(ptr::null_mut(), 4096, protection, flags, &file, 0).unwrap();
            file.set_len(0).unwrap();
            page.cast::<u8>().write_volatile(1);
        }
    }

    fn send() {
        // SAFETY: a signal to this thread.
        assert_eq!(unsafe { libc::raise(libc::SIGBUS) }, 0);
    }

    /// What a process does that has a window, after `before`.
    fn with_window(before: impl FnOnce(), then: impl FnOnce()) {
        before();
        let window = Window::reserve().expect("armed");
        then();
        drop(window);
    }

    fn run(case: &str) {
        let nothing = || {};
        let default = || set_action(libc::SIG_DFL, 0);
        let ignore = || set_action(libc::SIG_IGN, 0);
        match case {
            "as the runtime left it, fault" => with_window(nothing, fault_elsewhere),
            "default, fault" => with_window(default, fault_elsewhere),
            "default, sent" => with_window(default, send),
            "ignored, fault" => with_window(ignore, fault_elsewhere),
            "ignored, sent" => with_window(ignore, send),
            "short, fault" => {
                let before = || set_action(short as *const () as usize, 0);
                with_window(before, fault_elsewhere);
            }
            "long, fault" => {
                let before = || set_action(long as *const () as usize, libc::SA_SIGINFO);
                with_window(before, fault_elsewhere);
            }
            "long, sent" => {
                let before = || set_action(long as *const () as usize, libc::SA_SIGINFO);
                with_window(before, send);
            }
            "installed later" => {
                drop(Window::reserve().expect("armed"));
                default();
                assert!(Window::reserve().is_none(), "its faults would kill");
            }
            "installed between two maps" => {
                let file = tempfile::tempfile().unwrap();
                file.set_len(8192).unwrap();
                let mut window = Window::reserve().expect("armed");
                window.map(&file, 0, 4096).unwrap();
                default();
                assert!(window.map(&file, 4096, 4096).is_err(), "its faults would kill");
            }
            _ => unreachable!("{case}"),
        }
        exit(0);
    }

    fn outcome(case: &str) -> ExitStatus {
        let mut own = Command::new(env::current_exe().unwrap());
        own.args(["--exact", "vfs::mapped::window::tests::faults_of_others_go_where_they_went"]);
        own.env(CASE, case).output().unwrap().status
    }

    #[test]
    fn faults_of_others_go_where_they_went() {
        if let Ok(case) = env::var(CASE) {
            return run(&case);
        }
        for case in
            ["as the runtime left it, fault", "default, fault", "default, sent", "ignored, fault"]
        {
            assert_eq!(outcome(case).signal(), Some(libc::SIGBUS), "{case}");
        }
        for (case, code) in [
            ("ignored, sent", 0),
            ("short, fault", 41),
            ("long, fault", 42),
            ("long, sent", 42),
            ("installed later", 0),
            ("installed between two maps", 0),
        ] {
            assert_eq!(outcome(case).code(), Some(code), "{case}");
        }
    }

    #[test]
    fn a_page_that_faults_is_an_error_for_good_and_the_next_window_has_none() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SPAN as u64).unwrap();
        let mut window = Window::reserve().unwrap();
        window.map(&file, 0, SPAN).unwrap();
        window.store(SPAN - 3, b"end").unwrap();
        file.set_len(4096).unwrap();
        window.store(0, b"here").unwrap();
        let lost = window.store(4090, b"across the border").unwrap_err();
        assert_eq!(lost.raw_os_error(), Some(libc::EIO));
        assert!(window.store(0, b"here").is_err(), "what it faulted before stays so");
        drop(window);

        file.set_len(SPAN as u64).unwrap();
        let mut next = Window::reserve().unwrap();
        next.map(&file, 0, SPAN).unwrap();
        next.store(4096, b"whole").unwrap();
    }

    #[test]
    fn there_are_so_many_windows_and_each_comes_back() {
        for _ in 0..2 {
            let windows: Vec<_> = std::iter::from_fn(Window::reserve).collect();
            assert!((1..=WINDOWS_MAX).contains(&windows.len()), "others may have some");
        }
        assert!(Window::reserve().is_some());
    }
}
