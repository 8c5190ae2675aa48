//! The instruction set of the kernels: the widest that the processor has, or a lower one.
//!
//! Lower ones are for tests: results that hold on this machine must hold on another. pulp compiles the kernels for each set. The
//! `gemm` library chooses its microkernels itself and has no option for it, so for a lower set they are called by name, with the
//! library's own blocking around them.
//!
//! Two sets have instructions for bf16, `amx` and `avx512bf16`; their kernels for f32 are those of `avx512`. The other sets convert
//! bf16 factors to f32. These instructions treat subnormal inputs as 0 and flush subnormal results to 0.
//!
//! Each set gives the same bits at every call and with every number of threads. Different sets may give different last
//! bits: fused multiply-adds are one rounding where plain ones are two, and products are summed in other blocks. That holds for
//! bf16 too, where the sums of two sets may also be rounded to neighbouring numbers; `amx`, `avx512bf16` and `avx512` give the same f32.

use super::bf16::block::Dot;
use plugin_api::{Code, Error, Result};
use pulp::{Arch, Simd, WithSimd};

/// Forces an instruction set for every session of the process whose option `isa` is `auto`.
pub const VARIABLE: &str = "TELOS_CANDLE_ISA";

/// The widest set of the processor.
pub const AUTO: &str = "auto";

/// The sets that the kernels are compiled for, widest first. `baseline` is the set that every processor of this architecture has
/// (SSE2 on x86-64).
#[cfg(target_arch = "x86_64")]
pub const KNOWN: &[&str] = &["amx", "avx512bf16", "avx512", "avx2", "baseline"];
/// The sets that the kernels are compiled for, widest first.
#[cfg(target_arch = "aarch64")]
pub const KNOWN: &[&str] = &["neon", "baseline"];
/// The sets that the kernels are compiled for, widest first.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub const KNOWN: &[&str] = &["baseline"];

/// `dst = alpha dst + beta lhs rhs` on one thread, with the parameters of `gemm::gemm`: sizes m, n, k; `dst` with its column and
/// row stride and whether it is read; `lhs` and `rhs` with theirs; the two factors.
pub type Multiply = unsafe fn(
    [usize; 3],
    (*mut f32, isize, isize, bool),
    (*const f32, isize, isize),
    (*const f32, isize, isize),
    [f32; 2],
);

/// A closure compiled for each vector width. Called by reference: a closure passed by value goes through an adapter that the
/// compiler does not inline, and its code would stay at the narrowest width.
struct Wide<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Wide<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// An instruction set.
#[derive(Clone, Copy)]
pub struct Isa {
    /// One of [`KNOWN`].
    pub name: &'static str,
    /// The pulp target for which the kernels are compiled.
    pub arch: Arch,
    /// The matrix product.
    pub multiply: Multiply,
    /// Whether large products of f32 are computed by the module `avx512` instead.
    pub avx512: bool,
    /// The product of bf16, if the set has instructions for it.
    pub dot: Option<Dot>,
}

impl Isa {
    /// The widest set of this processor.
    fn widest() -> Isa {
        // `baseline` is available everywhere.
        Isa::of_widest(available().first().copied().unwrap_or("baseline"))
    }

    /// A set whose f32 kernels are the widest.
    fn of_widest(name: &'static str) -> Isa {
        let dot = match name {
            #[cfg(target_arch = "x86_64")]
            "amx" => Some(super::bf16::amx::DOT),
            #[cfg(target_arch = "x86_64")]
            "avx512bf16" => Some(super::bf16::dot::DOT),
            _ => None,
        };
        let avx512 = ["amx", "avx512bf16", "avx512"].contains(&name);
        Isa { name, arch: Arch::new(), multiply: widest, avx512, dot }
    }

    /// The set of that name; `None` if the processor or the build lacks it.
    fn named(name: &str) -> Option<Isa> {
        let available = available();
        let name = available.iter().copied().find(|available| *available == name)?;
        match name {
            #[cfg(target_arch = "x86_64")]
            "avx2" if name != available[0] => {
                let simd = pulp::x86::V3::try_new()?;
                Some(Isa { name, arch: Arch::V3(simd), multiply: lower::avx2, avx512: false, dot: None })
            }
            "baseline" if name != available[0] => {
                Some(Isa { name, arch: Arch::Scalar, multiply: lower::baseline, avx512: false, dot: None })
            }
            _ => Some(Isa::of_widest(name)),
        }
    }

    /// The set, if `request` succeeds for it. A lower set would not do instead: the manifest has already named this one, and receipts
    /// record that name.
    ///
    /// # Errors
    /// [`Code::OPTION`].
    fn granted(self, request: impl FnOnce(&str) -> bool) -> Result<Isa> {
        if request(self.name) {
            return Ok(self);
        }
        let text = "open: the system refuses AMX to this process; set isa = \"avx512bf16\", or TELOS_CANDLE_ISA=avx512bf16 if the \
                    environment selected the set";
        Err(Error::new(Code::OPTION, text))
    }

    /// Runs a closure that is marked `#[inline(always)]`, compiled for the set.
    #[inline(always)]
    pub fn wide<R>(&self, f: impl FnMut() -> R) -> R {
        self.arch.dispatch(Wide(f))
    }

    /// The set that the option `isa` (none: `auto`) and the value of [`VARIABLE`] select.
    ///
    /// # Errors
    /// [`Code::OPTION`] for a set that is unknown, that this processor lacks or that the system refuses to this process, and if the
    /// two contradict each other.
    pub fn choose(option: Option<&str>, variable: Option<&str>) -> Result<Isa> {
        let refused = |text: String| Err(Error::new(Code::OPTION, format!("open: {text}")));
        let given = [("option `isa`", option), ("the environment variable TELOS_CANDLE_ISA", variable)];
        let mut chosen: Option<(&str, &str)> = None;
        for (place, wanted) in given {
            let Some(wanted) = wanted.filter(|wanted| ![AUTO, ""].contains(wanted)) else { continue };
            if !KNOWN.contains(&wanted) {
                return refused(format!("{place} is \"{wanted}\", expected one of {AUTO}, {}", KNOWN.join(", ")));
            }
            match chosen {
                Some((first, other)) if other != wanted => {
                    return refused(format!("{first} is \"{other}\" and {place} is \"{wanted}\"; leave one out"));
                }
                _ => chosen = Some((place, wanted)),
            }
        }
        let Some((place, wanted)) = chosen else { return Isa::widest().granted(request) };
        match Isa::named(wanted) {
            Some(isa) => isa.granted(request),
            None => {
                let has = available().join(", ");
                refused(format!("{place} is \"{wanted}\", which this processor lacks; it has {has}"))
            }
        }
    }
}

/// Requests from the system what the set needs beyond the processor; returns whether this process has it.
fn request(name: &str) -> bool {
    match name {
        #[cfg(target_arch = "x86_64")]
        "amx" => super::bf16::amx::request(),
        _ => true,
    }
}

/// The sets of [`KNOWN`] that this processor has, widest first.
pub fn available() -> Vec<&'static str> {
    let has = |name: &&&str| match **name {
        #[cfg(target_arch = "x86_64")]
        "amx" => super::bf16::amx::available(),
        #[cfg(target_arch = "x86_64")]
        "avx512bf16" => super::bf16::dot::available(),
        #[cfg(target_arch = "x86_64")]
        "avx512" => pulp::x86::V4::try_new().is_some(),
        #[cfg(target_arch = "x86_64")]
        "avx2" => pulp::x86::V3::try_new().is_some(),
        #[cfg(target_arch = "aarch64")]
        "neon" => !matches!(Arch::new(), Arch::Scalar),
        _ => true,
    };
    KNOWN.iter().filter(has).copied().collect()
}

/// The library's own choice.
unsafe fn widest(
    [m, n, k]: [usize; 3],
    (dst, dst_cs, dst_rs, read_dst): (*mut f32, isize, isize, bool),
    (lhs, lhs_cs, lhs_rs): (*const f32, isize, isize),
    (rhs, rhs_cs, rhs_rs): (*const f32, isize, isize),
    [alpha, beta]: [f32; 2],
) {
    let (plain, one) = (false, gemm::Parallelism::None);
    // SAFETY: guaranteed by the caller: pointers and strides describe live matrices, and `dst` overlaps neither factor.
    unsafe {
        gemm::gemm(
            m, n, k, dst, dst_cs, dst_rs, read_dst, lhs, lhs_cs, lhs_rs, rhs, rhs_cs, rhs_rs, alpha, beta, plain,
            plain, plain, one,
        );
    }
}

/// The library's blocking with microkernels that it would not choose on this processor.
mod lower {
    use gemm_common::{
        Parallelism,
        gemm::gemm_basic_generic,
        simd::{MixedSimd, Scalar},
    };
    use gemm_f32::microkernel;

    macro_rules! multiply {
        ($(#[$meta:meta])* $name:ident, $simd:ty, $kernels:path, $lanes:literal) => {
            $(#[$meta])*
            pub unsafe fn $name(
                [m, n, k]: [usize; 3],
                (dst, dst_cs, dst_rs, read_dst): (*mut f32, isize, isize, bool),
                (lhs, lhs_cs, lhs_rs): (*const f32, isize, isize),
                (rhs, rhs_cs, rhs_rs): (*const f32, isize, isize),
                [alpha, beta]: [f32; 2],
            ) {
                use $kernels::{H_M, H_N, H_UKR, MR_DIV_N, NR, UKR};
                let Some(simd) = <$simd as MixedSimd<f32, f32, f32, f32>>::try_new() else {
                    // `Isa` returns this function only if the processor has the set.
                    unreachable!("the instruction set was there when the session opened")
                };
                // As in `gemm::gemm`: the microkernels work by columns, so a result by rows is computed transposed.
                let (m, n, dst_cs, dst_rs, lhs, lhs_cs, lhs_rs, rhs, rhs_cs, rhs_rs) = if dst_cs.abs() < dst_rs.abs() {
                    (n, m, dst_rs, dst_cs, rhs, rhs_rs, rhs_cs, lhs, lhs_rs, lhs_cs)
                } else {
                    (m, n, dst_cs, dst_rs, lhs, lhs_cs, lhs_rs, rhs, rhs_cs, rhs_rs)
                };
                // SAFETY: guaranteed by the caller: pointers and strides describe live matrices, `dst` overlaps neither factor,
                // and strides are positive. The processor has the instruction set, as `simd` proves.
                unsafe {
                    gemm_basic_generic::<_, f32, $lanes, { MR_DIV_N * $lanes }, NR, MR_DIV_N, H_M, H_N>(
                        simd,
                        m,
                        n,
                        k,
                        dst,
                        dst_cs,
                        dst_rs,
                        read_dst,
                        lhs,
                        lhs_cs,
                        lhs_rs,
                        rhs,
                        rhs_cs,
                        rhs_rs,
                        alpha,
                        beta,
                        false,
                        false,
                        false,
                        |a, b, c| a * b + c,
                        &UKR,
                        &H_UKR,
                        false,
                        Parallelism::None,
                    );
                }
            }
        };
    }

    multiply!(
        /// With AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        avx2,
        gemm_common::simd::V3,
        microkernel::fma::f32,
        8
    );
    multiply!(
        /// With one number at a time.
        baseline,
        Scalar,
        microkernel::scalar::f32,
        1
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(option: Option<&str>, variable: Option<&str>) -> String {
        let error = Isa::choose(option, variable).err().unwrap();
        assert_eq!(error.code, Code::OPTION);
        error.message
    }

    #[test]
    fn the_option_and_the_variable_choose_and_bad_ones_are_refused_by_name() {
        let name = |option, variable| Isa::choose(option, variable).unwrap().name;
        let widest = Isa::widest().name;
        assert_eq!(widest, available()[0]);
        for (option, variable) in [(None, None), (Some("auto"), None), (None, Some("auto")), (None, Some(""))] {
            assert_eq!(name(option, variable), widest);
        }
        for &isa in &available() {
            assert_eq!((name(Some(isa), None), name(None, Some(isa)), name(Some(isa), Some(isa))), (isa, isa, isa));
            assert_eq!(name(Some("auto"), Some(isa)), isa);
        }
        let unknown = refused(None, Some("sse9"));
        assert!(unknown.contains("TELOS_CANDLE_ISA") && unknown.contains("sse9") && unknown.contains("baseline"));
        assert!(refused(Some("AVX2"), None).contains("option `isa` is \"AVX2\""));
        if let Some(other) = available().get(1) {
            assert!(refused(Some(widest), Some(other)).contains("leave one out"));
        }
        for lacking in KNOWN.iter().filter(|name| !available().contains(name)) {
            assert!(refused(None, Some(lacking)).contains("this processor lacks"));
        }
    }

    /// Catches a set that is used although the system refuses it, or silently replaced by another.
    #[test]
    fn a_set_that_the_system_refuses_is_refused_with_the_remedy() {
        let isa = Isa::widest();
        assert_eq!(isa.granted(|name| name == isa.name).unwrap().name, isa.name);
        let error = isa.granted(|_| false).err().unwrap();
        assert_eq!(error.code, Code::OPTION);
        assert!(error.message.contains("isa = \"avx512bf16\""), "{error}");
    }

    /// Catches strides that are exchanged on the way to the microkernels, and a set that is not the selected one: sums of products
    /// are exact for small integers, and a fused multiply-add rounds once instead of twice.
    #[test]
    fn matrix_products_are_correct_for_every_instruction_set() {
        let (m, n, k) = (7, 37, 19);
        let a: Vec<f32> = (0..m * k).map(|i| (i % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i % 7) as f32 - 3.0).collect();
        for name in available() {
            let isa = Isa::choose(Some(name), None).unwrap();
            for (by_rows, accumulate) in [(true, false), (true, true), (false, false), (false, true)] {
                let mut c = vec![2.0f32; m * n];
                let strides = if by_rows { (1, n as isize) } else { (m as isize, 1) };
                // SAFETY: sizes and strides are those of the three vectors.
                unsafe {
                    let c = (c.as_mut_ptr(), strides.0, strides.1, accumulate);
                    let (a, b) = ((a.as_ptr(), 1, k as isize), (b.as_ptr(), 1, n as isize));
                    (isa.multiply)([m, n, k], c, a, b, [1.0, 0.5]);
                }
                for i in 0..m {
                    for j in 0..n {
                        let product: f32 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                        let start = if accumulate { 2.0 } else { 0.0 };
                        let found = c[i * strides.1 as usize + j * strides.0 as usize];
                        assert_eq!(found, start + 0.5 * product, "{name}, by rows {by_rows}, [{i}, {j}]");
                    }
                }
            }
        }
    }

    /// Catches a name with the code of another set: for (1 + 2^-12)^2 - 1, the fused product keeps 2^-24.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn only_the_baseline_rounds_products() {
        let x = 1.0 + 1.0f32 / 4096.0;
        for name in available() {
            let isa = Isa::choose(Some(name), None).unwrap();
            // The first product of an element is added to 0, the second to the first, the others are 0. Deep and large enough for
            // the plain microkernels.
            const SIDE: usize = 24;
            const DEPTH: usize = 8;
            let column = |first: f32| {
                let values = [first, x].into_iter().chain([0.0; DEPTH - 2]);
                values.flat_map(|value| [value; SIDE]).collect::<Vec<f32>>()
            };
            let (a, b) = (column(-1.0), column(1.0 + 1.0 / 2048.0));
            let mut c = [0.0f32; SIDE * SIDE];
            let side = SIDE as isize;
            // SAFETY: as above; `a` lies by columns, `b` and `c` by rows.
            unsafe {
                let (a, b) = ((a.as_ptr(), side, 1), (b.as_ptr(), 1, side));
                (isa.multiply)([SIDE, SIDE, DEPTH], (c.as_mut_ptr(), 1, side, false), a, b, [1.0, 1.0]);
            }
            let fused = c[0] == 1.0 / 4096.0 / 4096.0;
            assert_eq!(fused, name != "baseline", "{name}: {:e}", c[0]);
        }
    }
}
