//! Files without their dead rows (`merge = "rewrite"`), for readers that know no deletion vectors.

use roaring::RoaringTreemap;

use super::files::read::Rows;
use super::files::{FileWriter, Files, Object};
use super::keys::{Address, Key, KeyEncoder};
use crate::error::{Error, Result};
use crate::log::NewFile;

/// Rows that were written again.
#[derive(Debug, Default)]
pub struct Rewritten {
    pub files: Vec<NewFile>,
    /// Where the keys of their rows now stand: a place in `files`, and the row.
    pub moved: Vec<(Key, Address)>,
}

/// Writes the live rows of some files to new ones, in their order.
pub async fn rewrite(files: &Files, encoder: &KeyEncoder, sources: &[(Object, RoaringTreemap)]) -> Result<Rewritten> {
    let mut made = Rewritten::default();
    let mut writer: Option<FileWriter> = None;
    for (object, dead) in sources {
        let mut rows = Rows::all(object, &files.schema).await?;
        while let Some(kept) = rows.next_alive(dead).await? {
            if kept.num_rows() == 0 {
                continue;
            }
            let into = match &mut writer {
                Some(writer) => writer,
                none => none.insert(files.begin(Default::default())?),
            };
            let start = u32::try_from(into.rows()).map_err(|_| Error::bug("a data file has grown beyond four thousand million rows"))?;
            into.write(&kept).await?;
            let file = made.files.len() as u32;
            let keys = encoder.encode(&encoder.columns_of(&kept))?;
            made.moved
                .extend(keys.into_iter().zip(start..).map(|(key, row)| (key, Address { file, row })));
            if into.is_full() {
                finish(&mut writer, &mut made).await?;
            }
        }
    }
    finish(&mut writer, &mut made).await?;
    Ok(made)
}

async fn finish(writer: &mut Option<FileWriter>, made: &mut Rewritten) -> Result<()> {
    if let Some(writer) = writer.take() {
        made.files.push(writer.finish().await?);
    }
    Ok(())
}
