//! Which CPUs drain which ring.

use std::{collections::BTreeSet, fmt};

use super::{ConfigError, value};

/// The most groups, and so rings.
pub const LANES_MAX: usize = 64;
/// CPUs are numbered below this, as in the kernel's CPU sets.
const CPUS_MAX: usize = 1024;
const KEY: &str = "cpu_groups";

/// CPUs that drain a ring together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuGroup {
    /// Their numbers; none for whichever the kernel picks.
    pub cpus: BTreeSet<usize>,
}

impl fmt::Display for CpuGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for cpu in &self.cpus {
            write!(f, "{separator}{cpu}")?;
            separator = ",";
        }
        Ok(())
    }
}

/// Reads the groups, each as the kernel writes CPU lists: `0-3,8`. No group is one on any CPU.
pub(super) fn cpu_groups(texts: &[String]) -> Result<Vec<CpuGroup>, ConfigError> {
    if texts.is_empty() {
        return Ok(vec![CpuGroup::default()]);
    }
    if texts.len() > LANES_MAX {
        return Err(value(KEY, format!("{} groups are more than {LANES_MAX}", texts.len())));
    }
    let mut seen = BTreeSet::new();
    let mut groups = Vec::new();
    for text in texts {
        let cpus = cpu_list(text).ok_or_else(|| {
            let problem =
                format!("{text:?} is no list of CPUs below {CPUS_MAX}; write e.g. \"0-3\" or \"0,2,4-7\"");
            value(KEY, problem)
        })?;
        if let Some(cpu) = cpus.iter().find(|&&cpu| !seen.insert(cpu)) {
            return Err(value(KEY, format!("CPU {cpu} is in two groups")));
        }
        groups.push(CpuGroup { cpus });
    }
    Ok(groups)
}

fn cpu_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut cpus = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse().ok().filter(|&cpu: &usize| cpu < CPUS_MAX);
        let (first, last) = (number(first)?, number(last)?);
        if first > last || (first..=last).any(|cpu| !cpus.insert(cpu)) {
            return None;
        }
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(texts: &[&str]) -> Result<Vec<String>, String> {
        let texts: Vec<_> = texts.iter().map(|&text| text.to_owned()).collect();
        let groups = cpu_groups(&texts).map_err(|error| error.to_string())?;
        Ok(groups.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn groups_are_lists_and_ranges_of_cpus() {
        assert_eq!(groups(&[]), Ok(vec![String::new()]), "one, on any CPU");
        assert_eq!(groups(&["0-3", "4, 6-7"]), Ok(vec!["0,1,2,3".into(), "4,6,7".into()]));
    }

    #[test]
    fn what_is_no_list_or_in_two_groups_is_refused() {
        for texts in [&[""][..], &["a"], &["3-1"], &["0,0"], &["0-1", "1-2"], &["1024"], &["-1"], &["0-"]] {
            let problem = groups(texts).expect_err("no groups");
            assert!(problem.starts_with("cpu_groups"), "{problem}");
        }
    }
}
