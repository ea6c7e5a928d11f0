//! Walks along a chain and says where it stops being one.

use super::{ChainHead, Hash, Record};

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Records that fit, from the first on.
    pub entries: u64,
    /// Of the last record that fits.
    pub head_hash: Hash,
    /// The first record that does not fit.
    pub broken: Option<Broken>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub seq: u64,
    pub problem: String,
}

/// Takes the stored records in order.
#[derive(Debug)]
pub struct Verifier {
    head: ChainHead,
    broken: Option<Broken>,
}

impl Default for Verifier {
    fn default() -> Self {
        Self { head: ChainHead::NONE, broken: None }
    }
}

impl Verifier {
    /// The record, if it is the next one of an intact chain. After the first that is not, nothing more is looked at.
    pub fn next(&mut self, bytes: &[u8]) -> Option<Record> {
        if self.broken.is_some() {
            return None;
        }
        match follows(self.head, bytes) {
            Ok(record) => {
                self.head = record.head();
                Some(record)
            }
            Err(problem) => {
                self.breaks_at(self.head.seq + 1, problem);
                None
            }
        }
    }

    /// Something that belongs to record `seq` is not what it was.
    pub fn breaks_at(&mut self, seq: u64, problem: String) {
        self.broken.get_or_insert(Broken { seq, problem });
    }

    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    pub fn head(&self) -> ChainHead {
        self.head
    }

    /// `expected`: the head that is noted beside the chain. A chain that ends before it has lost records.
    pub fn finish(mut self, expected: ChainHead) -> Verdict {
        if self.head.seq < expected.seq {
            self.breaks_at(self.head.seq + 1, format!("is missing: the chain should reach {}", expected.seq));
        } else if self.head != expected {
            self.breaks_at(expected.seq.max(1), "is not the record that the store calls its newest".to_owned());
        }
        let Self { head, broken } = self;
        Verdict { entries: head.seq, head_hash: head.hash, broken }
    }
}

fn follows(head: ChainHead, bytes: &[u8]) -> Result<Record, String> {
    let record = Record::decode(bytes).map_err(|problem| problem.to_string())?;
    if record.seq != head.seq + 1 {
        return Err(format!("has the number {}: records were taken out or put in", record.seq));
    }
    if record.prev_hash != head.hash {
        return Err(format!("does not follow record {}: its predecessor had another hash", head.seq));
    }
    if record.hash != record.expected_hash() {
        return Err("was altered: its hash does not fit its fields".to_owned());
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::super::tests::draft;
    use super::*;

    fn chain(length: usize) -> Vec<Record> {
        let mut head = ChainHead::NONE;
        (0..length)
            .map(|n| {
                let record = head.append(draft(&n.to_string()));
                head = record.head();
                record
            })
            .collect()
    }

    fn verdict(records: &[Record], expected: ChainHead) -> Verdict {
        let mut verifier = Verifier::default();
        records.iter().for_each(|record| drop(verifier.next(&record.encode())));
        verifier.finish(expected)
    }

    #[test]
    fn an_untouched_chain_is_intact() {
        let records = chain(5);
        let head = records[4].head();
        assert_eq!(verdict(&records, head), Verdict { entries: 5, head_hash: head.hash, broken: None });
        assert_eq!(verdict(&[], ChainHead::NONE).broken, None);
    }

    #[test]
    fn a_record_that_is_missing_moved_or_forged_breaks_the_chain_where_it_is() {
        let records = chain(5);
        let head = records[4].head();
        let broken_at = |records: &[Record]| verdict(records, head).broken.map(|broken| broken.seq);

        let without_the_third: Vec<_> = records.iter().filter(|record| record.seq != 3).cloned().collect();
        assert_eq!(broken_at(&without_the_third), Some(3));
        assert_eq!(broken_at(&records[..4]), Some(5), "the tail was cut off");
        assert_eq!(broken_at(&records[1..]), Some(1), "the beginning was cut off");
        let mut swapped = records.clone();
        swapped.swap(1, 2);
        assert_eq!(broken_at(&swapped), Some(2));
        let mut forged = records.clone();
        forged[2].reason = "nothing to see".into();
        assert_eq!(broken_at(&forged), Some(3), "altered, old hash kept");
        forged[2].hash = forged[2].expected_hash();
        assert_eq!(broken_at(&forged), Some(4), "altered, own hash made to fit");
    }

    #[test]
    fn a_record_that_was_added_at_the_end_is_noticed() {
        let records = chain(5);
        assert_eq!(verdict(&records, records[3].head()).broken.map(|broken| broken.seq), Some(4));
    }
}
