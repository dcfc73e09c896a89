//! k-anonymity: how small the groups are of rows that agree in everything but what is masked. Pure.
//!
//! A group is as large as the number of different people in it, if it is known whose each row is: a person who is there
//! a hundred times hides nobody. P. Samarati and L. Sweeney, "Protecting privacy when disclosing information", 1998.

use std::collections::{HashMap, HashSet};

/// A group of fewer is small: the least that health agencies and statistical offices ask for is between 3 and 11.
pub const SMALL: u64 = 5;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// How many groups there are.
    pub count: u64,
    /// The smallest of them; 0 if there is none.
    pub smallest: u64,
    /// Rows in groups smaller than [`SMALL`].
    pub rows_in_small: u64,
}

/// Groups rows by what they agree in. `rows`: of each, what stands for its values, and whose it is if that is known.
pub fn groups(rows: impl Iterator<Item = (Vec<u64>, Option<u64>)>) -> Groups {
    let mut groups: HashMap<Vec<u64>, (u64, HashSet<u64>)> = HashMap::new();
    for (values, person) in rows {
        let (rows, people) = groups.entry(values).or_default();
        *rows += 1;
        // Without a person each row is somebody else's.
        people.insert(person.unwrap_or(*rows));
    }
    let sizes = groups.values().map(|(rows, people)| (*rows, people.len() as u64));
    Groups {
        count: groups.len() as u64,
        smallest: sizes.clone().map(|(_, people)| people).min().unwrap_or(0),
        rows_in_small: sizes.filter(|(_, people)| *people < SMALL).map(|(rows, _)| rows).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_count_and_not_rows() {
        let row = |value, person| (vec![value], person);
        let alone = (0..100).map(|_| row(1, Some(7)));
        let crowd = (0..5).map(|person| row(2, Some(person)));
        let found = groups(alone.chain(crowd));
        assert_eq!(found, Groups { count: 2, smallest: 1, rows_in_small: 100 });
        let unknown = groups((0..5).map(|_| row(1, None)).chain([row(2, None)]));
        assert_eq!(unknown, Groups { count: 2, smallest: 1, rows_in_small: 1 });
        assert_eq!(groups(std::iter::empty()), Groups::default());
    }
}
