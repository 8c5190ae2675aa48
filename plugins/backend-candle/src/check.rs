//! Checks of both paths before anything is written: dtypes, indices, cu_seqlens, attribute values.

use crate::kernels::Element;
use plugin_api::{
    Code, Error, Result,
    backend::{DType, View, ops::MaskKind},
};
use std::cell::Cell;

/// The refusal of an operand's dtype.
pub fn unsupported(view: &View) -> Error {
    Error::unsupported(format!("candle computes in f32 and bf16, one operand is {}", view.dtype))
}

/// Refuses a compute type other than f32 and bf16.
///
/// # Errors
/// [`Code::UNSUPPORTED`].
pub fn float(view: &View) -> Result<()> {
    if [DType::F32, DType::BF16].contains(&view.dtype) { Ok(()) } else { Err(unsupported(view)) }
}

/// Refuses a dtype other than that of `E`.
///
/// # Errors
/// [`Code::UNSUPPORTED`].
pub fn is<E: Element>(view: &View) -> Result<()> {
    if view.dtype == E::DTYPE {
        return Ok(());
    }
    Err(Error::unsupported(format!("candle expected an operand of {}, one is {}", E::DTYPE, view.dtype)))
}

/// Refuses an index outside `0..table`.
///
/// # Errors
/// [`Code::INDEX`] naming the first one and the table's size.
pub fn indices(op: &str, name: &str, ids: &[i32], table: usize) -> Result<()> {
    match ids.iter().position(|&id| usize::try_from(id).map_or(true, |id| id >= table)) {
        None => Ok(()),
        Some(at) => {
            Err(Error::new(Code::INDEX, format!("{op}: {name}[{at}] is {}, the table has {table} rows", ids[at])))
        }
    }
}

/// Refuses cu_seqlens that do not ascend from 0 to `tokens`.
///
/// # Errors
/// [`Code::INDEX`].
pub fn offsets(op: &str, offsets: &[i32], tokens: usize) -> Result<()> {
    let ascending = offsets.windows(2).all(|w| w[0] <= w[1]);
    let ends = offsets.first() == Some(&0) && offsets.last().is_some_and(|&last| usize::try_from(last) == Ok(tokens));
    if ascending && ends {
        return Ok(());
    }
    Err(Error::new(
        Code::INDEX,
        format!(
            "{op}: offsets must ascend from 0 to {tokens}; they {}",
            if ends {
                "descend somewhere".to_owned()
            } else {
                format!("run from {:?} to {:?}", offsets.first(), offsets.last())
            }
        ),
    ))
}

/// The checked attributes of an attention operation.
#[derive(Clone, Copy)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Which keys are visible.
    pub mask: MaskKind,
    /// Sliding window; 0: none.
    pub window: usize,
    /// Soft cap; 0: none.
    pub softcap: f32,
}

impl AttentionShape {
    /// Checks an attention operation's attributes, which are the parameters in the catalogue's order.
    ///
    /// # Errors
    /// [`Code::INVALID_ARGUMENT`] naming the attribute; [`Code::UNSUPPORTED`] for an unknown mask.
    #[allow(clippy::too_many_arguments, reason = "the operation's attributes, once")]
    pub fn new(
        op: &str,
        heads: i64,
        kv_heads: i64,
        head_dim: i64,
        scale: f64,
        mask: MaskKind,
        window: i64,
        softcap: f64,
    ) -> Result<Self> {
        if heads < 1 || kv_heads < 1 || heads % kv_heads != 0 {
            return Err(Error::invalid(format!("{op}: kv_heads {kv_heads} does not divide heads {heads}")));
        }
        if head_dim < 1 {
            return Err(Error::invalid(format!("{op}: head_dim {head_dim} is not positive")));
        }
        if window < 0 {
            return Err(Error::invalid(format!("{op}: window {window} is negative")));
        }
        if ![MaskKind::CAUSAL, MaskKind::BIDIRECTIONAL, MaskKind::PREFIX].contains(&mask) {
            return Err(mask.unknown(op));
        }
        Ok(AttentionShape {
            heads: heads as usize,
            kv_heads: kv_heads as usize,
            head_dim: head_dim as usize,
            scale: scale as f32,
            mask,
            window: window as usize,
            softcap: softcap as f32,
        })
    }

    /// Query heads per key-value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// The range of keys that query `i` of a sequence of `len` tokens sees.
    #[inline(always)]
    pub fn visible(&self, i: usize, len: usize, prefix: usize) -> (usize, usize) {
        let end = match self.mask {
            MaskKind::BIDIRECTIONAL => len,
            MaskKind::PREFIX => (i + 1).max(prefix.min(len)),
            _ => i + 1,
        };
        (if self.window > 0 { (i + 1).saturating_sub(self.window) } else { 0 }, end)
    }
}

/// Refuses a prefix mask without prefix lengths, and lengths that are negative.
///
/// # Errors
/// [`Code::INVALID_ARGUMENT`], [`Code::INDEX`].
pub fn prefix(op: &str, mask: MaskKind, prefix: Option<&[i32]>) -> Result<()> {
    match prefix {
        None if mask == MaskKind::PREFIX => Err(Error::invalid(format!("{op}: the prefix mask needs `prefix`"))),
        Some(lengths) if lengths.iter().any(|&p| p < 0) => {
            Err(Error::new(Code::INDEX, format!("{op}: a prefix length is negative")))
        }
        _ => Ok(()),
    }
}

/// Refuses a temperature that is not positive and finite.
///
/// # Errors
/// [`Code::INVALID_ARGUMENT`].
pub fn temperature(op: &str, temperature: f64) -> Result<()> {
    if temperature > 0.0 && temperature.is_finite() {
        return Ok(());
    }
    Err(Error::invalid(format!("{op}: temperature {temperature} is not positive")))
}

/// Refuses a weight outside 0..=1.
///
/// # Errors
/// [`Code::INVALID_ARGUMENT`].
pub fn weight(op: &str, weight: f64) -> Result<()> {
    if (0.0..=1.0).contains(&weight) {
        return Ok(());
    }
    Err(Error::invalid(format!("{op}: weight {weight} is outside 0..=1")))
}

/// Refuses rows with an index outside `0..table`, or with one twice.
///
/// # Errors
/// [`Code::INDEX`] or [`Code::INVALID_ARGUMENT`] naming the row.
pub fn distinct<'a>(op: &str, name: &str, rows: impl Iterator<Item = &'a [i32]>, table: usize) -> Result<()> {
    thread_local! {
        /// A row's indices in order, reused.
        static SORTED: Cell<Vec<i32>> = const { Cell::new(Vec::new()) };
    }
    let mut sorted = SORTED.take();
    let result = rows.enumerate().try_for_each(|(n, row)| {
        // The row's name is made only for the error.
        if indices(op, name, row, table).is_err() {
            indices(op, &format!("{name}[{n}]"), row, table)?;
        }
        sorted.clear();
        sorted.extend_from_slice(row);
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(format!("{op}: row {n} of {name} has {} twice", pair[0])));
        }
        Ok(())
    });
    SORTED.set(sorted);
    result
}

/// Refuses more ids than the vocabulary has.
///
/// # Errors
/// [`Code::SHAPE`].
pub fn top(op: &str, count: u64, vocabulary: u64) -> Result<()> {
    if count <= vocabulary {
        return Ok(());
    }
    Err(Error::new(Code::SHAPE, format!("{op}: {count} ids of a vocabulary of {vocabulary}")))
}
