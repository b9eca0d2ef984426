//! Columnar: Parquet, column by column. Rows are gathered until they make a group; no more than a group is ever held.
//!
//! Moments are microseconds in UTC, money is a decimal with twelve places, pages are compressed with zstd.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};

use crate::export::columns::{self, Column, Kind, Value};
use crate::ledger::entry::Entry;

/// How many rows make a group: some 40 MB of them while they are gathered.
pub(super) const ROWS_IN_GROUP: usize = 1 << 15;
/// Bytes of a 128-bit number, which a decimal of 38 digits takes.
const DECIMAL_BYTES: i32 = 16;

/// Rows on their way.
pub(super) struct Columnar<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    group: Vec<Entry>,
    rows_in_group: usize,
}

impl<W: Write + Send> Columnar<W> {
    pub(super) fn new(out: W, rows_in_group: usize) -> io::Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            // Of pages they would be held until the end, for every group there is.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_created_by(concat!("weir ", env!("CARGO_PKG_VERSION")).to_owned());
        let writer = SerializedFileWriter::new(out, schema().map_err(failed)?, Arc::new(properties.build()));
        Ok(Self { writer: writer.map_err(failed)?, group: Vec::new(), rows_in_group })
    }

    pub(super) fn write(&mut self, entry: Entry) -> io::Result<()> {
        self.group.push(entry);
        if self.group.len() == self.rows_in_group { self.write_group().map_err(failed) } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.group.is_empty() {
            self.write_group().map_err(failed)?;
        }
        self.writer.into_inner().map_err(failed)
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for column in columns::ALL.iter() {
            let mut writer = group.next_column()?.expect("the schema has every column");
            write_column(&mut writer, column, &self.group)?;
            writer.close()?;
        }
        group.close()?;
        self.group.clear();
        Ok(())
    }
}

impl<W: Write + Send> fmt::Debug for Columnar<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Columnar").field("gathered", &self.group.len()).finish_non_exhaustive()
    }
}

fn schema() -> Result<TypePtr, ParquetError> {
    let fields = columns::ALL.iter().map(|column| {
        let (physical, logical) = match column.kind {
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Count => (Physical::INT64, None),
            Kind::Flag => (Physical::BOOLEAN, None),
            Kind::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
            Kind::Usd => (Physical::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::decimal(12, 38))),
            Kind::Milliseconds => (Physical::DOUBLE, None),
        };
        let mut field = Type::primitive_type_builder(column.name, physical).with_repetition(Repetition::OPTIONAL);
        if column.kind == Kind::Usd {
            field = field.with_length(DECIMAL_BYTES).with_precision(38).with_scale(12);
        }
        field.with_logical_type(logical).build().map(Arc::new)
    });
    Ok(Arc::new(Type::group_type_builder("calls").with_fields(fields.collect::<Result<_, _>>()?).build()?))
}

fn write_column(
    writer: &mut SerializedColumnWriter<'_>,
    column: &Column,
    entries: &[Entry],
) -> Result<(), ParquetError> {
    let values = entries.iter().map(|entry| column.of(entry));
    match column.kind {
        Kind::Text => write_values::<ByteArrayType>(writer, values, |value| match value {
            Value::Text(text) => Some(ByteArray::from(text.as_bytes())),
            _ => None,
        }),
        Kind::Flag => write_values::<BoolType>(writer, values, |value| match value {
            Value::Flag(flag) => Some(flag),
            _ => None,
        }),
        Kind::Count | Kind::Time => write_values::<Int64Type>(writer, values, |value| match value {
            Value::Count(count) => Some(i64::try_from(count).unwrap_or(i64::MAX)),
            Value::Time(at) => Some(at),
            _ => None,
        }),
        Kind::Usd => write_values::<FixedLenByteArrayType>(writer, values, |value| match value {
            Value::Usd(usd) => {
                let pico = i128::try_from(usd.pico()).unwrap_or(i128::MAX);
                Some(FixedLenByteArray::from(pico.to_be_bytes().to_vec()))
            }
            _ => None,
        }),
        Kind::Milliseconds => write_values::<DoubleType>(writer, values, |value| match value {
            Value::Took(took) => Some(milliseconds(took)),
            _ => None,
        }),
    }
}

/// Microseconds are what is kept.
fn milliseconds(took: std::time::Duration) -> f64 {
    (took.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

/// Writes the values that are known, and which those are.
fn write_values<'a, T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    values: impl Iterator<Item = Value<'a>>,
    known: impl Fn(Value<'a>) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let values: Vec<Option<T::T>> = values.map(known).collect();
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    writer.typed::<T>().write_batch(&values, Some(&levels), None).map(drop)
}

/// What went wrong beneath, if it was the writing; so that a reader who is gone is known for one.
fn failed(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}
