//! A look at a part of the disk inside an image, before the image is streamed: as far as its tables can be had now.

use super::decompress::Decompressor;
use super::header::Header;
use super::map::{Kind, Map};
use super::plan::Reader;
use super::tables::{Zeroes, parse_l1_entry, parse_l2};
use crate::error::Error;
use crate::source::Source;

/// `length` bytes of the disk at `offset`; `None` where they can not be had yet. What is seen is a hint and no more: it is the
/// stream that goes onto the disk and is held to the digest.
pub(crate) async fn peek(
    source: &mut Source<'_>,
    total: Option<u64>,
    first: &[u8],
    offset: u64,
    length: u64,
) -> Result<Option<Vec<u8>>, Error> {
    let header = Header::parse(first).map_err(|error| error.at(0))?;
    let mut reader = Reader::new(source, first, total);
    let end = offset.saturating_add(length).min(header.virtual_size);
    let grain = header.grain();
    let mut bytes = Vec::new();
    let mut table: Option<(u64, Option<Map>)> = None;
    let mut at = offset - offset % grain;
    while at < end {
        let index = at / header.l2_span();
        if table.as_ref().is_none_or(|(known, _)| *known != index) {
            let Some(map) = level_2(&mut reader, &header, index).await? else { return Ok(None) };
            table = Some((index, map));
        }
        let place = table.as_ref().and_then(|(_, map)| map.as_ref()?.find(at, &header));
        let part = match place {
            None => vec![0; usize::try_from(grain).unwrap_or_default()],
            Some((host, Kind::Plain(_))) => match reader.get(host, grain).await? {
                Some(bytes) => bytes,
                None => return Ok(None),
            },
            Some((host, Kind::Compressed(sectors))) => {
                let stop = (host - host % 512).saturating_add(u64::from(sectors) * 512);
                let stop = total.map_or(stop, |total| stop.min(total));
                let Some(packed) = reader.get(host, stop.saturating_sub(host)).await? else {
                    return Ok(None);
                };
                let mut cluster = vec![0; usize::try_from(header.cluster()).unwrap_or_default()];
                Decompressor::new()
                    .cluster(header.codec, &packed, &mut cluster)
                    .map_err(|error| error.at(host))?;
                // The grain inside it: a compressed cluster has no sub-clusters of its own.
                let within = usize::try_from(at % header.cluster()).unwrap_or_default();
                cluster.into_iter().skip(within).take(usize::try_from(grain).unwrap_or_default()).collect()
            }
        };
        bytes.extend(part);
        at = at.saturating_add(grain);
    }
    let skip = usize::try_from(offset % grain).unwrap_or_default();
    let wanted = usize::try_from(end.saturating_sub(offset)).unwrap_or_default();
    Ok(Some(bytes.into_iter().skip(skip).take(wanted).collect()))
}

/// The level-2 table number `index`, as a map: `Some(None)` where its part of the disk is zero, `None` where it can not be had.
async fn level_2(
    reader: &mut Reader<'_, '_>,
    header: &Header,
    index: u64,
) -> Result<Option<Option<Map>>, Error> {
    let at = header.l1_offset.saturating_add(index.saturating_mul(8));
    let Some(entry) = reader.get(at, 8).await? else { return Ok(None) };
    let Some(offset) = parse_l1_entry(header, &entry).map_err(|error| error.at(at))? else {
        return Ok(Some(None));
    };
    let Some(bytes) = reader.get(offset, header.cluster()).await? else { return Ok(None) };
    let (mut map, mut zeroes) = (Map::default(), Zeroes::default());
    let number = usize::try_from(index).unwrap_or(usize::MAX);
    parse_l2(header, number, &bytes, reader.total(), &mut map, &mut zeroes)
        .map_err(|error| error.at(offset))?;
    Ok(Some(Some(map)))
}
