//! The instruction set of the kernels: the widest that the processor has, or a lower one.
//!
//! Lower ones are for tests: results that hold on this machine must hold on another. pulp compiles the kernels for each set; products
//! have code of their own for some (modules `packed` and `bf16`).
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
    /// Whether products of f32 have code of their own for AVX-512.
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
        Isa { name, arch: Arch::new(), avx512, dot }
    }

    /// The set of that name; `None` if the processor or the build lacks it.
    fn named(name: &str) -> Option<Isa> {
        let available = available();
        let name = available.iter().copied().find(|available| *available == name)?;
        match name {
            #[cfg(target_arch = "x86_64")]
            "avx2" if name != available[0] => {
                let simd = pulp::x86::V3::try_new()?;
                Some(Isa { name, arch: Arch::V3(simd), avx512: false, dot: None })
            }
            "baseline" if name != available[0] => Some(Isa { name, arch: Arch::Scalar, avx512: false, dot: None }),
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
}
