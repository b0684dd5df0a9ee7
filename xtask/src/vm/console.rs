//! What the virtual machine says on its console, understood: libtest's lines, those of `init`, and the kernel's
//! own.

use weir_machines::kernel_log::{self, Sign};

/// What a line of `init`'s begins with.
pub(super) const MARK: &str = "weir-vm:";

/// Everything that matters of what was said so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Transcript {
    /// The kernel's release.
    pub(super) release: Option<String>,
    /// How many tests there will be.
    pub(super) planned: u32,
    /// How many have passed.
    pub(super) passed: u32,
    /// How many were left out by the tests themselves.
    pub(super) ignored: u32,
    /// Those that failed.
    pub(super) failed: Vec<String>,
    /// The exit status of the tests, and with it the end.
    pub(super) status: Option<i32>,
    /// What else went wrong first.
    pub(super) trouble: Option<String>,
    /// The first that the kernel said of being broken, and went on.
    pub(super) broken: Option<String>,
    /// How often it said what it may have said because the host was slow.
    pub(super) slow: u32,
    /// What the tests that run are called together.
    round: String,
    /// How many of those planned are libtest's.
    libtest: u32,
    /// How many had passed and were left out when the test program at work began.
    before: (u32, u32),
    /// How many test programs have begun, and how many have summed up and were content.
    programs: (u32, u32),
}

impl Transcript {
    /// Takes the next line.
    pub(super) fn line(&mut self, line: &str) {
        let line = line.trim_end();
        // The kernel may be in the middle of a line of its own.
        if let Some(at) = line.find(MARK) {
            self.init(line[at + MARK.len()..].trim_start());
        } else if let Some(test) = line.strip_prefix("test ") {
            self.test(test);
        } else if let Some(count) = line.strip_prefix("running ").and_then(|rest| rest.split_once(" test")) {
            let count = count.0.parse().unwrap_or(0);
            self.libtest += count;
            self.planned += count;
            self.before = (self.passed, self.ignored);
            self.programs.0 += 1;
        }
        if kernel_log::is_fatal(line) {
            self.trouble.get_or_insert_with(|| line.to_owned());
        }
        match kernel_log::sign(line) {
            Some(Sign::Broken) => {
                self.broken.get_or_insert_with(|| line.to_owned());
            }
            Some(Sign::Slow) => self.slow += 1,
            None => {}
        }
    }

    /// How many tests have ended.
    pub(super) fn done(&self) -> usize {
        self.passed as usize + self.ignored as usize + self.failed.len()
    }

    /// Nothing if all is well, else the reason why not.
    pub(super) fn complaint(&self) -> Option<String> {
        let Self {
            release: _,
            planned,
            passed: _,
            ignored: _,
            failed,
            status,
            trouble,
            broken,
            slow: _,
            round: _,
            libtest,
            before: _,
            programs: (programs, content),
        } = self;
        match (trouble.as_ref().or(broken.as_ref()), status) {
            (Some(trouble), _) => Some(trouble.clone()),
            (None, None) => Some("the machine ended before the tests did".to_owned()),
            _ if !failed.is_empty() => Some(format!("{} failed", failed.len())),
            (None, Some(status)) if *status != 0 => Some(format!("the tests ended with status {status}")),
            _ if self.done() != *planned as usize => {
                Some(format!("{} of {planned} tests ended", self.done()))
            }
            _ if *libtest == 0 => Some("no test ran".to_owned()),
            _ if content != programs => Some(format!("{content} of {programs} test programs were content")),
            _ => None,
        }
    }

    fn init(&mut self, said: &str) {
        let (verb, rest) = said.split_once(' ').unwrap_or((said, ""));
        match verb {
            "kernel" => self.release = Some(rest.to_owned()),
            "passed" => {
                self.planned += 1;
                self.passed += 1;
            }
            "failed" => {
                self.planned += 1;
                self.failed.push(rest.to_owned());
            }
            "round" => rest.clone_into(&mut self.round),
            "error" => self.trouble = Some(rest.to_owned()),
            "end" => self.status = rest.parse().ok(),
            _ => {}
        }
    }

    /// `name ... ok`, or the summary.
    fn test(&mut self, said: &str) {
        if let Some(summary) = said.strip_prefix("result: ") {
            self.programs.1 += u32::from(summary.starts_with("ok."));
            // It counts better than we do when the kernel has interrupted a line.
            if let (Some(passed), Some(ignored)) = (counted(summary, "passed"), counted(summary, "ignored")) {
                (self.passed, self.ignored) = (self.before.0 + passed, self.before.1 + ignored);
            }
            return;
        }
        let Some((name, outcome)) = said.rsplit_once(" ... ") else { return };
        if outcome.starts_with("ok") {
            self.passed += 1;
        } else if outcome.starts_with("ignored") {
            self.ignored += 1;
        } else if outcome.starts_with("FAILED") {
            self.failed.push(format!("{name} ({})", self.round));
        }
    }
}

/// The number before a word of libtest's summary, as in `28 passed;`.
fn counted(summary: &str, what: &str) -> Option<u32> {
    let parts = summary.split(['.', ';']).map(str::trim);
    parts.into_iter().find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(lines: &[&str]) -> Transcript {
        let mut transcript = Transcript::default();
        lines.iter().for_each(|line| transcript.line(line));
        transcript
    }

    const GOOD: &[&str] = &[
        "weir-vm: kernel 5.10.0-46-cloud-amd64\r",
        "weir-vm: passed the_agent_starts_and_stops\r",
        "weir-vm: round root\r",
        "running 3 tests\r",
        "test a::one ... ok\r",
        "test a::slow has been running for over 60 seconds\r",
        "test a::two - should panic ... ok\r",
        "test a::three ... ignored, for a reason\r",
        "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.23s\r",
        "weir-vm: round user\r",
        "running 1 test\r",
        "test b::four ... ok\r",
        "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.12s\r",
        "[   12.345678] weir-vm: end 0\r",
    ];

    #[test]
    fn a_good_run_is_counted_and_has_no_complaint() {
        let transcript = transcript(GOOD);
        assert_eq!(transcript.release.as_deref(), Some("5.10.0-46-cloud-amd64"));
        assert_eq!((transcript.planned, transcript.passed, transcript.ignored), (5, 4, 1));
        assert_eq!((transcript.done(), transcript.complaint()), (5, None));
    }

    #[test]
    fn an_end_that_is_missing_is_a_complaint() {
        for missing in [3, 8, 12, 13] {
            let lines: Vec<_> =
                GOOD.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, line)| *line).collect();
            assert!(transcript(&lines).complaint().is_some(), "without {}", GOOD[missing]);
        }
    }

    #[test]
    fn a_line_that_the_kernel_interrupted_is_made_up_for_by_the_summary() {
        let mut lines = GOOD.to_vec();
        lines.splice(6..7, ["test a::two - should pa[   3.2] mtrr: your CPUs", "nic ... ok"]);
        let transcript = transcript(&lines);
        assert_eq!((transcript.passed, transcript.done(), transcript.complaint()), (4, 5, None));
    }

    #[test]
    fn a_failed_test_is_named() {
        let lines: Vec<_> = GOOD
            .iter()
            .map(|line| {
                line.replace("two - should panic ... ok", "two ... FAILED")
                    .replace("ok. 2 passed; 0", "FAILED. 1 passed; 1")
            })
            .collect();
        let transcript = transcript(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(transcript.failed, ["a::two (root)"]);
        assert_eq!(transcript.complaint().as_deref(), Some("1 failed"));
    }

    #[test]
    fn a_kernel_that_says_it_is_broken_fails_although_every_test_passed() {
        let warning = "[    9.000001] WARNING: CPU: 0 PID: 1 at net/core/sock_map.c:1 sock_map_close+0x1/0x2";
        let mut lines = GOOD.to_vec();
        lines.splice(4..4, ["[    9.000000] refcount_t: underflow; use-after-free.\r", warning]);
        let first = "[    9.000000] refcount_t: underflow; use-after-free.";
        assert_eq!(transcript(&lines).complaint().as_deref(), Some(first));
        lines.splice(
            4..5,
            ["test a::two - should pa[    9.000001] WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2"],
        );
        assert!(transcript(&lines).complaint().is_some_and(|complaint| complaint.contains("WARNING: ")));
        // A panic says more.
        let panic = "[    9.000002] Kernel panic - not syncing: Fatal exception";
        lines.push(panic);
        assert_eq!(transcript(&lines).complaint().as_deref(), Some(panic));
    }

    #[test]
    fn what_a_slow_host_brings_about_is_counted_and_no_complaint() {
        let stall = [
            "[   61.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[   61.000001] rcu: \t1-...!: (1 GPs behind) idle=0d4/0/0x0 softirq=77/77 fqs=0",
            "[   61.000002] rcu: rcu_preempt kthread starved for 5250 jiffies! g-1007 f0x0 RCU_GP_WAIT_FQS(5)",
            "[   62.745688] hrtimer: interrupt took 9255450 ns",
        ];
        let transcript = transcript(&[&GOOD[..5], &stall, &GOOD[5..]].concat());
        assert_eq!((transcript.slow, transcript.complaint()), (2, None));
    }

    #[test]
    fn a_panic_is_the_complaint_whatever_came_before() {
        let panic = "[    3.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100";
        let complaint = transcript(&[GOOD, &[panic, "[    3.2] Oops: of a later day"]].concat()).complaint();
        assert_eq!(complaint.as_deref(), Some(panic));
        let complaint =
            transcript(&["weir-vm: error mounting bpf on /sys/fs/bpf: ENODEV", "weir-vm: end 1"]).complaint();
        assert_eq!(complaint.as_deref(), Some("mounting bpf on /sys/fs/bpf: ENODEV"));
    }
}
