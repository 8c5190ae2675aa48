//! TensorBoard's event files: the messages of `event.proto`, `summary.proto` and `tensor.proto` as far as they are written here,
//! with the fields' numbers, and the frames of TFRecord around them.
//!
//! ```text
//! frame = length (u64) | masked CRC of length (u32) | message | masked CRC of message (u32), all little-endian
//! masked CRC = rotate_right(CRC-32C, 15) + 0xa282ead8
//! ```

use crc::{CRC_32_ISCSI, Crc};
use prost::{Message, Oneof};

/// The CRC-32C of the frames.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// `DT_STRING` of `types.proto`.
const STRING: i32 = 7;
/// `SessionLog.START`.
const START: i32 = 1;

/// One record of an event file.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// The step.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// What it records.
    #[prost(oneof = "What", tags = "3, 5, 7")]
    pub what: Option<What>,
}

/// What an event records.
#[derive(Clone, PartialEq, Oneof)]
pub enum What {
    /// The version of the format; the first event of a file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    /// Values.
    #[prost(message, tag = "5")]
    Summary(Summary),
    /// The beginning of a process.
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// The state of a process.
#[derive(Clone, PartialEq, Message)]
pub struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Values of a step.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// The values.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<SummaryValue>,
}

/// A value with its name.
#[derive(Clone, PartialEq, Message)]
pub struct SummaryValue {
    /// The name.
    #[prost(string, tag = "1")]
    pub tag: String,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
    /// The value.
    #[prost(oneof = "Shown", tags = "2, 5, 8")]
    pub shown: Option<Shown>,
}

/// A value in the form in which TensorBoard shows it.
#[derive(Clone, PartialEq, Oneof)]
pub enum Shown {
    /// A number.
    #[prost(float, tag = "2")]
    Scalar(f32),
    /// Values counted in bins.
    #[prost(message, tag = "5")]
    Histogram(Histogram),
    /// Texts.
    #[prost(message, tag = "8")]
    Tensor(Tensor),
}

/// Values counted in bins, each given by its upper edge.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// Smallest value.
    #[prost(double, tag = "1")]
    pub min: f64,
    /// Largest value.
    #[prost(double, tag = "2")]
    pub max: f64,
    /// Number of values.
    #[prost(double, tag = "3")]
    pub num: f64,
    /// Their sum.
    #[prost(double, tag = "4")]
    pub sum: f64,
    /// The sum of their squares.
    #[prost(double, tag = "5")]
    pub sum_squares: f64,
    /// The upper edge of each bin.
    #[prost(double, repeated, tag = "6")]
    pub bucket_limit: Vec<f64>,
    /// The values in each bin.
    #[prost(double, repeated, tag = "7")]
    pub bucket: Vec<f64>,
}

/// A list of texts.
#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
    /// The texts.
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub texts: Vec<Vec<u8>>,
}

/// A tensor's shape.
#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    #[prost(message, repeated, tag = "2")]
    sizes: Vec<Size>,
}

/// A dimension's size.
#[derive(Clone, PartialEq, Message)]
pub struct Size {
    #[prost(int64, tag = "1")]
    size: i64,
}

/// Which part of TensorBoard shows a value.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin: Option<Plugin>,
}

/// A part of TensorBoard.
#[derive(Clone, PartialEq, Message)]
pub struct Plugin {
    #[prost(string, tag = "1")]
    name: String,
}

impl What {
    /// The first event of a file.
    pub fn version() -> What {
        What::FileVersion("brain.Event:2".to_owned())
    }

    /// The beginning of a process: TensorBoard drops what an earlier one wrote of the event's step and of later ones.
    pub fn start() -> What {
        What::SessionLog(SessionLog { status: START })
    }

    /// Values of a step.
    pub fn values(values: Vec<SummaryValue>) -> What {
        What::Summary(Summary { values })
    }
}

impl SummaryValue {
    /// A number.
    pub fn scalar(tag: &str, value: f64) -> SummaryValue {
        SummaryValue { tag: tag.to_owned(), metadata: None, shown: Some(Shown::Scalar(value as f32)) }
    }

    /// Values counted in bins.
    pub fn histogram(tag: &str, histogram: Histogram) -> SummaryValue {
        SummaryValue { tag: tag.to_owned(), metadata: None, shown: Some(Shown::Histogram(histogram)) }
    }

    /// Texts in Markdown, shown as the rows of a table.
    pub fn texts(tag: &str, texts: Vec<String>) -> SummaryValue {
        let shape = Shape { sizes: vec![Size { size: texts.len() as i64 }] };
        let texts = texts.into_iter().map(String::into_bytes).collect();
        SummaryValue {
            tag: tag.to_owned(),
            metadata: Some(Metadata { plugin: Some(Plugin { name: "text".to_owned() }) }),
            shown: Some(Shown::Tensor(Tensor { dtype: STRING, shape: Some(shape), texts })),
        }
    }
}

impl Event {
    /// Appends the event as a record.
    pub fn write(&self, to: &mut Vec<u8>) {
        let message = self.encode_to_vec();
        let length = (message.len() as u64).to_le_bytes();
        for part in [&length[..], &message] {
            to.extend_from_slice(part);
            to.extend_from_slice(&masked_crc(part).to_le_bytes());
        }
    }
}

fn masked_crc(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches another polynomial, a mask in the other direction, numbers of 0 that are left out, and fields in another order:
    /// TensorBoard's own `RecordWriter` writes these bytes.
    #[test]
    fn records_are_those_of_tensorboards_own_writer() {
        let values = vec![SummaryValue::scalar("loss", 0.0)];
        let mut record = Vec::new();
        Event { wall_time: 1.5, step: 3, what: Some(What::values(values)) }.write(&mut record);
        let expected = b"\x1a\x00\x00\x00\x00\x00\x00\x00\x12\x9b\xd8-\t\x00\x00\x00\x00\x00\x00\xf8?\x10\x03*\r\n\x0b\n\x04loss\x15\x00\x00\x00\x00\x20\x92tN";
        assert_eq!(record, expected);
    }
}
