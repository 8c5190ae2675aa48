//! The product of a block by AMX: `tdpbf16ps` on tiles of 16 x 16 sums. The instructions' functions are not stable in Rust, so they
//! are written as assembly.

use super::{
    block::{BLOCK, Dot, Rows, TILE},
    pack,
};
use std::{arch::asm, sync::OnceLock};

/// The products of the set `amx`.
pub const DOT: Dot =
    Dot { begin: configure, multiply, end: release, pack: pack::PACK, transpose: pack::transpose_sums, rate: 400 };

/// Whether this processor and the system let this process use AMX for bf16. On Linux the system must be asked once per process.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| super::dot::available() && has_tiles() && permitted())
}

fn has_tiles() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    /// The tiles' configuration and data among the states that the system saves.
    const SAVED: u64 = 3 << 17;
    if !is_x86_feature_detected!("xsave") || std::arch::x86_64::__cpuid(0).eax < 7 {
        return false;
    }
    let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
    let (low, high): (u32, u32);
    // SAFETY: `xgetbv` exists where AVX is in use, which the caller has checked with AVX512-BF16.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    let saved = u64::from(high) << 32 | u64::from(low);
    features & (BF16 | TILE) == BF16 | TILE && saved & SAVED == SAVED
}

/// Asks Linux for the tiles' registers: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let answer: i64;
    // SAFETY: a call of the system with integers only, which changes no memory of this program.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") REQUEST,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// Whether other systems grant tiles without a request is untested.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
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
    // SAFETY: the processor has AMX (the caller's promise); the configuration is a valid one.
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
