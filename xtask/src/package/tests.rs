//! What is in the packages, and what their scripts do.
//!
//! They are made of the dev binaries, which are there when tests run (`cargo xtask test` builds them first).

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, sync::LazyLock};

use super::*;

/// Path in the package to mode, as `dpkg-deb -c` shows it, and the packages' control files.
struct Content {
    version: String,
    files: BTreeMap<String, String>,
    control: PathBuf,
    data: PathBuf,
}

const SUFFIX: &str = "+test1";

fn content(name: &str) -> &'static Content {
    static ALL: LazyLock<BTreeMap<String, Content>> = LazyLock::new(|| {
        let target = workspace::target_dir().expect("cargo tells");
        let out = target.join("packages-test");
        let _ = fs::remove_dir_all(&out);
        let version = version(SUFFIX).expect("a version");
        let packages = Packages { binaries: target.join("debug"), version, out: out.clone(), quick: true };
        let made = packages
            .make()
            .expect("debhelper makes them; it needs `cargo xtask test`'s packages and binaries");
        made.iter().map(|package| unpack(package, &out)).collect()
    });
    ALL.get(name).unwrap_or_else(|| panic!("no package {name}: {:?}", ALL.keys()))
}

fn unpack(package: &Path, out: &Path) -> (String, Content) {
    let dpkg_deb = |args: &[&str]| {
        let dirs = args.iter().skip(1).map(|name| out.join(name));
        exec::output(Command::new("dpkg-deb").arg(args[0]).arg(package).args(dirs))
            .expect("dpkg-deb reads it")
    };
    let field = |name| {
        let told = exec::output(Command::new("dpkg-deb").arg("-f").arg(package).arg(name));
        told.expect("dpkg-deb reads it").trim_end().to_owned()
    };
    let (name, version) = (field("Package"), field("Version"));
    let listing = dpkg_deb(&["-c"]);
    let file = |line: &str| {
        let mut words = line.split_whitespace();
        let (mode, owner) = (words.next()?, words.next()?);
        let path = words.nth(3)?;
        assert_eq!(owner, "root/root", "{line}");
        Some((path.trim_start_matches('.').to_owned(), mode.to_owned()))
    };
    let (control, data) = (format!("{name}.control"), format!("{name}.data"));
    dpkg_deb(&["-e", &control]);
    dpkg_deb(&["-x", &data]);
    let files = listing.lines().filter_map(file).collect();
    (name, Content { version, files, control: out.join(control), data: out.join(data) })
}

impl Content {
    fn has(&self, mode: &str, paths: &[&str]) {
        for path in paths {
            let found = self.files.get(*path).map(String::as_str);
            assert_eq!(found, Some(mode), "{path}: {:#?}", self.files);
        }
    }

    fn control(&self, name: &str) -> String {
        fs::read_to_string(self.control.join(name)).unwrap_or_default()
    }
}

#[test]
fn the_packages_have_programs_units_users_configuration_and_manual() {
    let (program, file) = ("-rwxr-xr-x", "-rw-r--r--");
    let agent = content("weir-agent");
    agent.has(program, &["/usr/bin/weir-agent"]);
    agent.has(
        file,
        &[
            "/etc/weir/agent.toml",
            "/lib/systemd/system/weir-agent.service",
            "/lib/systemd/system/run-weir-bpf.mount",
            "/usr/lib/sysusers.d/weir-agent.conf",
            "/usr/lib/tmpfiles.d/weir-agent.conf",
            "/usr/share/doc/weir-agent/install.md",
        ],
    );
    let proxy = content("weir-proxy");
    proxy.has(program, &["/usr/bin/weir-proxy"]);
    proxy.has(
        file,
        &[
            "/etc/weir/proxy.toml",
            "/lib/systemd/system/weir-proxy.service",
            "/usr/lib/sysusers.d/weir-proxy.conf",
            "/usr/lib/tmpfiles.d/weir-proxy.conf",
            "/usr/share/doc/weir-proxy/examples/grant.toml",
        ],
    );
    let weir = content("weir");
    weir.has(program, &["/usr/bin/weir"]);
    weir.has(
        file,
        &[
            "/usr/share/man/man1/weir.1.gz",
            "/usr/share/man/man1/weir-verify.1.gz",
            "/usr/share/bash-completion/completions/weir",
            "/usr/share/zsh/vendor-completions/_weir",
            "/usr/share/fish/vendor_completions.d/weir.fish",
        ],
    );
    for (content, program) in [(agent, "weir-agent"), (proxy, "weir-proxy"), (weir, "weir")] {
        assert!(content.version.ends_with(SUFFIX), "{}", content.version);
        let told = exec::output(Command::new(content.data.join("usr/bin").join(program)).arg("--version"));
        assert!(told.expect("it runs").starts_with("weir"));
        assert!(content.control("control").contains("libc6 (>= "), "what it is linked with is a dependency");
    }
}

#[test]
fn nothing_is_installed_with_rights_that_an_executable_should_not_give() {
    for name in ["weir-agent", "weir-proxy", "weir"] {
        for (path, mode) in &content(name).files {
            let fine =
                ["-rwxr-xr-x", "-rw-r--r--", "drwxr-xr-x"].contains(&mode.as_str()) || mode.starts_with('l');
            assert!(fine, "{path} has the mode {mode}");
        }
    }
}

#[test]
fn configuration_is_kept_when_somebody_changed_it() {
    assert_eq!(content("weir-agent").control("conffiles"), "/etc/weir/agent.toml\n");
    assert_eq!(content("weir-proxy").control("conffiles"), "/etc/weir/proxy.toml\n");
    assert_eq!(content("weir").control("conffiles"), "");
}

#[test]
fn scripts_are_shell_and_make_users_before_files_and_files_before_services() {
    for name in ["weir-agent", "weir-proxy"] {
        let content = content(name);
        for script in ["postinst", "prerm", "postrm"] {
            let path = content.control.join(script);
            assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o755);
            exec::output(Command::new("sh").arg("-n").arg(&path)).expect("the shell understands it");
        }
        let postinst = content.control("postinst");
        let at = |text: &str| postinst.find(text).unwrap_or_else(|| panic!("no {text} in {postinst}"));
        let places = [at("systemd-sysusers"), at("systemd-tmpfiles"), at("deb-systemd-invoke")];
        assert!(places.is_sorted(), "{postinst}");
    }
    for script in ["preinst", "postinst", "prerm", "postrm"] {
        assert!(!content("weir").control.join(script).exists(), "the command line needs no {script}");
    }
}

#[test]
fn an_upgrade_restarts_the_agent_and_neither_the_proxy_nor_the_mount() {
    let agent = content("weir-agent");
    assert!(agent.control("postinst").contains("_dh_action=restart"));
    let proxy = content("weir-proxy");
    assert!(!proxy.control("postinst").contains("_dh_action"), "{}", proxy.control("postinst"));
    assert!(proxy.control("postinst").contains("systemctl restart weir-proxy\""), "it says how to");
    for content in [agent, proxy] {
        // Before an upgrade nothing is stopped, and afterwards not by the old package either.
        let prerm = content.control("prerm");
        let stopping =
            prerm.lines().filter(|line| line.contains("stop") && !line.contains("deb-systemd-invoke"));
        assert_eq!(stopping.count(), 0, "{prerm}");
        assert!(prerm.contains("[ \"$1\" = remove ] && [ -d /run/systemd/system ]"), "{prerm}");
        for script in ["preinst", "postinst", "prerm", "postrm"] {
            assert!(!content.control(script).contains(".mount"), "{script} touches the mount");
        }
    }
}

#[test]
fn purging_removes_no_recordings_keys_or_grants() {
    let root = content("weir-agent").control.with_file_name("purged");
    let purge = |name: &str| {
        let mut script = Command::new("sh");
        script.arg(content(name).control.join("postrm")).arg("purge").env("DPKG_ROOT", &root);
        exec::output(&mut script).expect("it runs");
    };
    let kept = ["var/lib/weir/signing_key", "etc/weir/grants/a.toml", "var/lib/weir-proxy/host_key"];
    for path in kept {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("has one")).expect("writable");
        fs::write(path, "kept").expect("writable");
    }
    fs::create_dir_all(root.join("etc/weir/keys")).expect("writable");
    purge("weir-agent");
    purge("weir-proxy");
    for path in kept {
        assert!(root.join(path).exists(), "{path}");
    }
    assert!(!root.join("etc/weir/keys").exists(), "what is empty goes");
}

#[test]
fn the_configuration_that_comes_with_them_works() {
    let (agent, proxy) = (content("weir-agent"), content("weir-proxy"));
    let dir = agent.control.with_file_name("configured");
    fs::create_dir_all(dir.join("grants")).expect("writable");
    let text = fs::read_to_string(proxy.data.join("etc/weir/proxy.toml")).expect("is there");
    let here = text.replace("/etc/weir/grants", &dir.join("grants").display().to_string());
    let here = here.replace("/var/lib/weir-proxy", &dir.display().to_string());
    fs::write(dir.join("proxy.toml"), here).expect("writable");
    let mut check = Command::new(proxy.data.join("usr/bin/weir-proxy"));
    let told = exec::output(check.arg("--check").arg("--config").arg(dir.join("proxy.toml")));
    assert_eq!(told.expect("it makes sense"), "0 resources, 0 grants, 0 of them malformed\n");

    let text = fs::read_to_string(agent.data.join("etc/weir/agent.toml")).expect("is there");
    // This node need not have the proxy's user.
    fs::write(dir.join("agent.toml"), text.replace("\"weir-proxy\"", "\"root\"")).expect("writable");
    let mut check = Command::new(agent.data.join("usr/bin/weir-agent"));
    exec::output(check.arg("--check").arg("--config").arg(dir.join("agent.toml"))).expect("it makes sense");
}

#[test]
fn another_folder_for_packages_is_made_and_told_as_a_whole_path() {
    let target = env::temp_dir().join(format!("weir-packages-{}", std::process::id()));
    let wanted = target.join("a/../b");
    let out = out_dir(Some(&wanted), &target).expect("it is made");
    assert!(out.is_dir() && out.is_absolute() && out.ends_with("b"), "{}", out.display());
    assert!(out_dir(None, &target).expect("it is made").ends_with("packages"));
    fs::remove_dir_all(&target).expect("it was ours");
}

#[test]
fn a_version_has_nothing_in_it_that_dpkg_does_not_take() {
    assert_eq!(version("+2~a.1").expect("fine"), concat!(env!("CARGO_PKG_VERSION"), "+2~a.1"));
    for suffix in ["-1", " 2", "/../x", "\n"] {
        version(suffix).expect_err(suffix);
    }
}
