//! The product of a block by AMX: `tdpbf16ps` on tiles of 16 x 16 sums. The instructions' functions are not stable in Rust, so they
//! are written as assembly.

use super::{
    block::{BLOCK, Dot, Rows, TILE},
    pack,
};
use std::{
    arch::{
        asm,
        x86_64::{__cpuid, __cpuid_count},
    },
    sync::OnceLock,
};

/// The products of the set `amx`.
pub const DOT: Dot =
    Dot { begin: configure, multiply, end: release, pack: pack::PACK, transpose: pack::transpose_sums, rate: 400 };

/// The bit of the tiles' data among the states that the system saves for a process; that of their configuration is the one below.
const TILE_DATA: u32 = 18;

/// Whether this processor has AMX for bf16 and the system supports it. The system may still refuse it to this process, see
/// [`request`].
pub fn available() -> bool {
    super::dot::available() && has_tiles() && system::supports_tiles()
}

fn has_tiles() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const OSXSAVE: u32 = 1 << 27;
    const SAVED: u64 = 3 << (TILE_DATA - 1);
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    let (low, high): (u32, u32);
    // SAFETY: the processor has `xgetbv` and the system allows it: that is the meaning of OSXSAVE.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    let saved = u64::from(high) << 32 | u64::from(low);
    features & (BF16 | TILE) == BF16 | TILE && saved & SAVED == SAVED
}

/// Requests AMX from the system, once; returns whether this process has it.
///
/// The request is for the whole process, all its threads, and cannot be taken back. Linux refuses small signal stacks afterwards,
/// also those of code that has nothing to do with AMX, because a signal saves the 8 KiB of the tiles there. Therefore only a session
/// with the set `amx` makes it, and [`available`] does not.
pub fn request() -> bool {
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(system::request_tiles)
}

/// Linux, which enables tiles for a process only at its request.
#[cfg(target_os = "linux")]
mod system {
    use super::TILE_DATA;
    use std::arch::asm;

    /// `arch_prctl(ARCH_GET_XCOMP_SUPP, &states)`.
    pub fn supports_tiles() -> bool {
        const GET_SUPPORTED: u64 = 0x1021;
        let mut states = 0u64;
        // SAFETY: the call writes one u64 at most, to `states`, which lives until it returns.
        let answer = unsafe { arch_prctl(GET_SUPPORTED, (&raw mut states).expose_provenance() as u64) };
        answer == 0 && states >> TILE_DATA & 1 == 1
    }

    /// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
    pub fn request_tiles() -> bool {
        const REQUEST: u64 = 0x1023;
        // SAFETY: the argument is a number; the call changes no memory of this program.
        unsafe { arch_prctl(REQUEST, u64::from(TILE_DATA)) == 0 }
    }

    /// # Safety
    /// What the system writes for this code lies at an address that may be written.
    unsafe fn arch_prctl(code: u64, argument: u64) -> i64 {
        const ARCH_PRCTL: i64 = 158;
        let answer: i64;
        // SAFETY: the caller's; a call of the system changes only the registers that are named.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => answer,
                in("rdi") code,
                in("rsi") argument,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        answer
    }
}

/// Whether other systems grant tiles without a request is untested.
#[cfg(not(target_os = "linux"))]
mod system {
    pub fn supports_tiles() -> bool {
        false
    }

    pub fn request_tiles() -> bool {
        false
    }
}

/// All eight tiles have 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: Config = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        (row_bytes[tile], rows[tile]) = (64, 16);
        tile += 1;
    }
    Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

unsafe fn configure() {
    // SAFETY: the processor and this process have AMX (the caller's promise); the configuration is a valid one.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) };
}

unsafe fn release() {
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Up to two tiles of rows by up to two of columns.
unsafe fn multiply(a: Rows, b: *const u8, cols: usize, steps: usize, sums: &mut [f32; BLOCK * BLOCK]) {
    let c = sums.as_mut_ptr();
    let second = a.ptr.wrapping_add(a.second);
    /// A loop over the steps: zeroed tiles of sums, the code of a step, and the tiles that are stored at the end.
    macro_rules! steps {
        ([$($zero:literal)*] [$($step:literal)*] [$($store:literal)*]) => {
            // SAFETY: the caller's: `steps` steps of both factors can be read; `c` has 32 rows of 128 bytes.
            unsafe {
                asm!(
                    $(concat!("tilezero ", $zero),)*
                    "2:",
                    $($step,)*
                    "add {a}, {step}",
                    "add {second}, {step}",
                    concat!("add {b}, ", 2048),
                    "dec {n}",
                    "jnz 2b",
                    $($store,)*
                    a = inout(reg) a.ptr => _,
                    second = inout(reg) second => _,
                    b = inout(reg) b => _,
                    n = inout(reg) steps => _,
                    rows = in(reg) a.stride,
                    step = in(reg) a.step,
                    tile = in(reg) 64usize,
                    c = in(reg) c,
                    c_rows = in(reg) 4 * BLOCK,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        };
    }
    const { assert!(2 * TILE == 2048 && BLOCK == 32) };
    match (a.rows > BLOCK / 2, cols > BLOCK / 2) {
        (true, true) => steps!(
            ["tmm0" "tmm1" "tmm2" "tmm3"]
            [
                "tileloadd tmm4, [{a} + {rows}*1]"
                "tileloadd tmm6, [{b} + {tile}*1]"
                "tileloadd tmm7, [{b} + {tile}*1 + 1024]"
                "tdpbf16ps tmm0, tmm4, tmm6"
                "tileloadd tmm5, [{second} + {rows}*1]"
                "tdpbf16ps tmm1, tmm4, tmm7"
                "tdpbf16ps tmm2, tmm5, tmm6"
                "tdpbf16ps tmm3, tmm5, tmm7"
            ]
            [
                "tilestored [{c} + {c_rows}*1], tmm0"
                "tilestored [{c} + {c_rows}*1 + 64], tmm1"
                "tilestored [{c} + {c_rows}*1 + 2048], tmm2"
                "tilestored [{c} + {c_rows}*1 + 2112], tmm3"
            ]
        ),
        (true, false) => steps!(
            ["tmm0" "tmm2"]
            [
                "tileloadd tmm4, [{a} + {rows}*1]"
                "tileloadd tmm6, [{b} + {tile}*1]"
                "tdpbf16ps tmm0, tmm4, tmm6"
                "tileloadd tmm5, [{second} + {rows}*1]"
                "tdpbf16ps tmm2, tmm5, tmm6"
            ]
            ["tilestored [{c} + {c_rows}*1], tmm0" "tilestored [{c} + {c_rows}*1 + 2048], tmm2"]
        ),
        (false, true) => steps!(
            ["tmm0" "tmm1"]
            [
                "tileloadd tmm4, [{a} + {rows}*1]"
                "tileloadd tmm6, [{b} + {tile}*1]"
                "tdpbf16ps tmm0, tmm4, tmm6"
                "tileloadd tmm7, [{b} + {tile}*1 + 1024]"
                "tdpbf16ps tmm1, tmm4, tmm7"
            ]
            ["tilestored [{c} + {c_rows}*1], tmm0" "tilestored [{c} + {c_rows}*1 + 64], tmm1"]
        ),
        (false, false) => steps!(
            ["tmm0"]
            [
                "tileloadd tmm4, [{a} + {rows}*1]"
                "tileloadd tmm6, [{b} + {tile}*1]"
                "tdpbf16ps tmm0, tmm4, tmm6"
            ]
            ["tilestored [{c} + {c_rows}*1], tmm0"]
        ),
    }
}
