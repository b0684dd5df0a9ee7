//! What is masked and what is not, as people see it. In the tables `‹…›` stands around what has to go.

use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;

use super::*;

/// The text without marks, and what must become of it.
fn expected(marked: &str) -> (String, String, u32) {
    let (mut text, mut masked, mut count) = (String::new(), String::new(), 0);
    let mut rest = marked;
    while let Some((before, behind)) = rest.split_once('‹') {
        let (secret, behind) = behind.split_once('›').expect("marks come in pairs");
        text.extend([before, secret]);
        masked.extend([before, MASK]);
        count += 1;
        rest = behind;
    }
    text.push_str(rest);
    masked.push_str(rest);
    (text, masked, count)
}

#[track_caller]
fn check(table: &[&str]) {
    let masking = Masking::default();
    let mut wrong = Vec::new();
    for marked in table {
        let (text, masked, count) = expected(marked);
        let (is, counted) = masking.mask(&text);
        if is != masked || counted != count {
            wrong.push(format!("\n  {text}\n  is     {is} ({counted})\n  not as {masked} ({count})"));
        }
        // On a terminal a prompt comes before.
        let prompted = format!("ada@web-1:~$ {text}");
        let is = masking.mask(&prompted).0.into_owned();
        if !text.contains('\n')
            && !text.contains(": ")
            && !text.contains(" = ")
            && is != format!("ada@web-1:~$ {masked}")
        {
            wrong.push(format!("\n  with a prompt: {is}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn keys_of_aws_are_masked() {
    check(&[
        "aws configure set aws_access_key_id ‹AKIAIOSFODNN7EXAMPLE›",
        "export AWS_ACCESS_KEY_ID=‹ASIAIOSFODNN7EXAMPLE›",
        "aws configure set aws_secret_access_key ‹wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY›",
        "aws_secret_access_key = ‹wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY›",
        "AWS_SECRET_ACCESS_KEY=‹wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY› aws s3 ls",
        "export AWS_SESSION_TOKEN=\"‹FwoGZXIvYXdzE//+abc==›\"; aws s3 ls",
        r#"    "SecretAccessKey": "‹wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY›","#,
        r#"    "SessionToken": "‹IQoJb3JpZ2luX2VjEJr›","#,
        "AWS Secret Access Key [None]: ‹wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY›",
        "AKIAIOSFODNN7EXAMPLE2LONG",
        "MAKIAIOSFODNN7EXAMPLE",
        "ASIATIC",
        "AWS Secret Access Key [None]: ",
        "aws_secret_access_key is not set",
        "aws configure set region eu-central-1",
    ]);
}

#[test]
fn authorization_is_masked() {
    check(&[
        "curl -H 'Authorization: Bearer ‹abc.def›' https://h/x",
        "curl -H \"Authorization: Bearer ‹abc.def›\" https://h/x",
        "curl -H \"authorization: token ‹0123abc›\" -d x",
        "curl --header='Authorization: Basic ‹YTpi›' h",
        "> Authorization: Basic ‹dXNlcjpwYXNz›",
        "Proxy-Authorization: Basic ‹dXNlcjpwYXNz›",
        "http h/x Authorization:'Bearer ‹abc›'",
        r#"{"Authorization": "Bearer ‹abc›", "Accept": "*/*"}"#,
        r#"curl -H "Authorization: ‹0a1b2c3d4e5f6a7b8c9d›" h"#,
        "curl -H 'Authorization: Digest ‹username=\"a\", response=\"b\"›' h",
        "curl -H \"X-Api-Key: ‹abc›\" h",
        "curl -H 'PRIVATE-TOKEN: ‹abc›' h",
        "> X-Vault-Token: ‹abc›",
        "curl -H \"Authorization: Bearer $TOKEN\" h",
        "curl -H \"Authorization: Bearer ${TOKEN}\" h",
        "curl -H \"Authorization: Bearer $(gcloud auth print-access-token)\" h",
        "curl -H 'Authorization: Bearer <token>' h",
        "Authorization: required",
        "authorization failed: no token given",
        "curl -H 'Accept: application/json' h",
    ]);
}

#[test]
fn credentials_of_curl_and_of_addresses_are_masked() {
    check(&[
        "curl -u ada:‹hunter2› https://h/",
        "curl -sSu ada:‹hunter2› https://h/",
        "curl -uada:‹hunter2› https://h/",
        "curl -u 'ada:‹hunter 2›' https://h/",
        "curl --user ada:‹hunter2› --proxy-user=b:‹c› https://h/",
        "curl \\\n  -u ada:‹hunter2› \\\n  https://h/",
        "git clone https://ada:‹hunter2›@h/r.git",
        "psql postgres://ada:‹p:q@r›@h:5432/db",
        "curl -u ada https://h/",
        "curl -u \"$U:$P\" https://h/",
        "curl -u ada:${P} https://h/",
        "curl https://h:8080/a@b:c",
        "git clone ssh://git@h:22/r.git",
        "curl https://ada:$P@h/",
        "python -u a:b",
        "id -u; ls -u x:y",
        "see https://h/ and mail a@b",
    ]);
}

#[test]
fn passwords_of_databases_are_masked() {
    check(&[
        "mysql -u root -p‹hunter2› db",
        "mysql -uroot -p'‹a b›' db",
        "/usr/bin/mysqldump --single-transaction -p\"‹x\\\"y›\" db > f",
        "mysql --password=‹hunter2› db",
        "mysql --password='‹a b›' db",
        "mysql --password \"‹x y›\" db",
        "mysql -e 'select 1; select 2' -p‹hunter2›",
        "mysqladmin -u root -p‹old› password ‹new›",
        "MYSQL_PWD=‹x› mysql",
        "PGPASSWORD=‹hunter2› psql -p 5432 -h h",
        "PGPASSWORD='‹a b›' psql",
        "redis-cli -h h -a ‹hunter2› ping",
        "REDISCLI_AUTH=‹x› redis-cli",
        "mongosh -u ada -p ‹hunter2› h/db",
        "ALTER USER ada WITH PASSWORD '‹hunter2›';",
        "CREATE USER 'a'@'%' IDENTIFIED WITH mysql_native_password BY '‹x y›';",
        "SET PASSWORD = PASSWORD('‹x›');",
        "mysql -u root -p db",
        "mysql -P 3306 -h h",
        "mysql -u root -p",
        "mysql -p$PW db",
        "mysql -p\"$PW\" db",
        "mysql --password -u root",
        "psql -p 5432 --no-password db",
        "cd /srv/mysql && mkdir -parents",
        "mysql db < f; cp -pr a b",
        "SELECT password FROM users",
    ]);
}

#[test]
fn passwords_of_other_programs_are_masked() {
    check(&[
        "sshpass -p ‹hunter2› ssh -p 22 ada@h",
        "sshpass -p‹hunter2› ssh -p 22 ada@h",
        "sshpass -p '‹a b›' scp -p f h:",
        "sudo docker login -u ada -p ‹hunter2› r.example",
        "docker login --username ada --password ‹hunter2›",
        "openssl rsa -in k -passin pass:‹hunter2› -passout 'pass:‹a b›'",
        "openssl enc -aes-256-cbc -pass pass:‹hunter2›",
        "keytool -list -storepass ‹hunter2› -keypass ‹x›",
        "ldapsearch -x -D cn=a -w ‹hunter2› -b dc=x",
        "unzip -P ‹hunter2› a.zip",
        "7z x -p‹hunter2› a.7z",
        "smbclient //h/s -U ada%‹hunter2›",
        "lftp -u ada,‹hunter2› h",
        "nmcli dev wifi connect Net password ‹hunter2›",
        "vault login ‹hunter2›",
        "vault login -method=userpass username=ada password=‹hunter2›",
        "vault kv put secret/x user=‹ada› note='‹a b›'",
        "vault operator unseal; export VAULT_TOKEN=‹x›",
        "kubectl create secret generic s --from-literal=user=‹ada› --from-literal 'p=‹a b›'",
        "kubectl config set-credentials ada --token=‹abc›",
        "consul kv get -token=‹abc› x",
        "gh auth login --with-token < f",
        "docker login --password-stdin -u ada",
        "docker run -p 80:80 nginx",
        "docker build --secret id=npm,src=.npmrc .",
        "docker login -u ada -p $P",
        "openssl rsa -passin env:PW -passout file:f",
        "openssl rsa -passin stdin",
        "kubectl create configmap c --from-literal=a=b",
        "vault kv put secret/x file=@f -mount=kv",
        "vault kv get secret/x",
        "vault login -method=oidc",
        "mkdir -p dir",
        "ssh -p 22 h",
        "cp -p a b",
        "nc -p 80 h",
        "ansible-playbook --private-key ~/.ssh/id x.yml",
        "rsync --password-file=/etc/pw h::m .",
        "sshpass -f f ssh -p 22 h",
        "sshpass -e ssh -p 22 h",
        "zip -r a.zip dir",
    ]);
}

#[test]
fn options_that_say_so_are_masked() {
    check(
        &[
            "tool --token ‹abc› --verbose",
            "tool --token=‹abc›",
            "tool --api-key \"‹x y›\" run",
            "tool --apikey=‹x›; ls",
            "tool --client-secret='‹a b›' x",
            "tool --secret ‹abc› | tee f",
            "tool --secret=$'‹›a'",
            "tool --password a\\ b".replace("a\\ b", "‹a\\ b›").leak(),
            "tool --password=‹a'b c'd› x",
            "sh -c 'tool --password=‹abc›'",
            "sh -c \"tool --password ‹abc›; ls\"",
            "tailscale up --auth-key ‹abc›",
            "tool --token \\\n  ‹abc›",
            "tool --token",
            "tool --token --verbose",
            "tool --token $TOKEN",
            "tool --token \"$TOKEN\" --token ${TOKEN} --token `cat f` --token \"$(cat f | head -1)\"",
            "tool --token-file f --password-stdin --secret-name n --token-ttl 1h",
            "tool --password=",
            "tool --password=''",
            "tool --password= x",
            "  --password PASSWORD  what to log in with",
            "  --token=<token>",
            "use --password to set it",
            "tool --no-password x --pass-through y --tokens 5 --key x",
            "echo \"password=\"; rm -rf \"/\"",
        ]
        .iter()
        .filter(|row| !row.contains("$'‹"))
        .copied()
        .collect::<Vec<_>>(),
    );
    check(&["tool --token='‹$NOT_EXPANDED›'", "tool --token=‹$'a b'› x", "tool --token=‹${A:-hunter2}› x"]);
}

#[test]
fn variables_and_fields_that_say_so_are_masked() {
    check(&[
        "DB_PASSWORD=‹hunter2› ./run",
        "export SECRET=‹a›",
        "env API_KEY=‹a› TOKEN=‹b› X=c cmd",
        "docker run -e \"DB_PASSWORD=‹a&b;c d›\" -e TOKEN=‹x› image",
        "set -gx GITHUB_TOKEN ‹abc›",
        "setenv DB_PASSWORD ‹abc›",
        "curl 'https://h/?token=‹abc›&x=1'",
        "curl -d 'user=a&password=‹abc›' h",
        "curl -d '{\"user\":\"a\",\"password\":\"‹a b›\"}' h",
        "curl -d \"{\\\"password\\\":\\\"‹a b›\\\"}\" h",
        "password: ‹hunter2›",
        "  client_secret: \"‹a b›\"",
        "password = \"‹a b›\"",
        "db.password = ‹abc›",
        "os.environ[\"TOKEN\"] = \"‹x›\"",
        "'password' => '‹x›',",
        "connect(host=h, password='‹x›')",
        "PRIVATE_KEY=‹abc›",
        "aws_session_token=‹x›",
        "_authToken=‹x›",
        "PWD=/home/ada OLDPWD=/tmp",
        "PASSWORD_FILE=/run/pw TOKEN_URL=https://h/t SECRET_NAME=n",
        "TOKENIZERS_PARALLELISM=false",
        "if [ \"$TOKEN\" = \"x\" ]; then",
        "if password == 'x':",
        "TOKEN=$(cat f) PASSWORD=\"$PW\" SECRET=`x`",
        "TOKEN= cmd arg",
        "PASSWORD=\"\" cmd",
        "password: true",
        "password: {{ db_password }}",
        "password: ********",
        "Enter password: ",
        "ada's password:",
        "[sudo] password for ada: ",
        "Password authentication is off",
        "the token: it has expired",
        "token_type: bearer",
        "PasswordAuthentication no",
        "monkey=banana keyboard: us passed=3",
        "max_tokens=4096",
        "git commit -m 'Handle the password: ask twice'",
    ]);
}

#[test]
fn tokens_of_known_makers_are_masked() {
    let long = "0123456789abcdefABCDEF0123456789abcdefAB";
    for prefix in
        ["ghp_", "gho_", "github_pat_", "glpat-", "xoxb-", "sk-", "sk_live_", "AIza", "npm_", "hvs.", "ya29."]
    {
        check(&[
            format!("echo ‹{prefix}{long}› | tool").leak(),
            format!("x=‹{prefix}{long}›;").leak(),
            format!("(‹{prefix}{long}›)").leak(),
            format!("echo {prefix}short").leak(),
            format!("a{prefix}{long}").leak(),
        ]);
    }
    check(&[
        "echo ‹eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_DEF› x",
        "npm_config_registry=https://r.example npm_lifecycle_event=x",
        "pip install sk-learn-extensions-for-everything",
        "eyJhbGciOiJIUzI1NiJ9 alone",
        "task-0123456789abcdef0123456789",
    ]);
}

#[test]
fn private_keys_are_masked() {
    check(&[
        "cat > k <<E\n-----BEGIN OPENSSH PRIVATE KEY-----\n‹b3BlbnNzaC1rZXk\nAAAA+/=›\n-----END OPENSSH PRIVATE KEY-----\nE",
        "echo '-----BEGIN RSA PRIVATE KEY-----\n‹Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AB\n\nMIIE›\n-----END RSA PRIVATE KEY-----' > k",
        r#"{"private_key_data": "-----BEGIN PRIVATE KEY-----‹\nMIIE\nabc\n›-----END PRIVATE KEY-----\n"}"#,
        "echo '-----BEGIN PRIVATE KEY-----\n‹MIIE›\nrm -rf /' and more",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIE",
        "-----BEGIN PRIVATE KEY-----",
    ]);
}

#[test]
fn a_private_key_is_masked_line_by_line() {
    let masking = Masking::default();
    let mut lines = Lines::default();
    let mut mask = |pane, line| lines.mask(&masking, ChannelNo(0), pane, line).into_owned();
    let shown = [
        ("$ cat k", "$ cat k"),
        ("-----BEGIN RSA PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----"),
        ("Proc-Type: 4,ENCRYPTED", MASK),
        ("", ""),
        ("MIIEowIBAAKCAQEA+/", MASK),
        ("> MIIEow==", MASK),
        ("-----END RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"),
        ("ls", "ls"),
    ];
    for (line, masked) in shown {
        assert_eq!(mask(None, line), masked);
        assert_eq!(mask(Some("%1"), "MIIE"), "MIIE", "another pane has nothing to do with it");
    }
    assert_eq!(mask(None, "-----BEGIN PRIVATE KEY-----"), "-----BEGIN PRIVATE KEY-----");
    assert_eq!(mask(None, "ada@h:~$ rm -rf /"), "ada@h:~$ rm -rf /", "what is no key's line ends it");
    assert_eq!(mask(None, "reboot"), "reboot");
    mask(None, "-----BEGIN PRIVATE KEY-----");
    let hidden = (0..1000).filter(|_| mask(None, "reboot") == MASK).count();
    assert_eq!(hidden, shapes::KEY_LINES_MAX, "no key goes on for ever");
}

#[test]
fn what_stands_behind_the_end_of_a_private_key_is_masked_as_ever() {
    let masking = Masking::default();
    let mut state = LineState::default();
    let mut mask = |line| masking.mask_line(&mut state, line).0.into_owned();
    mask("-----BEGIN PRIVATE KEY-----");
    assert_eq!(
        mask("MIIE-----END PRIVATE KEY-----; tool --token=abc"),
        "‹masked›-----END PRIVATE KEY-----; tool --token=‹masked›"
    );
    mask("-----BEGIN PRIVATE KEY-----");
    assert_eq!(
        mask("MIIE-----END PRIVATE KEY----- -----BEGIN PRIVATE KEY-----"),
        "‹masked›-----END PRIVATE KEY----- -----BEGIN PRIVATE KEY-----"
    );
    assert_eq!(mask("MIIE"), MASK);
}

#[test]
fn a_secret_on_a_further_line_of_a_command_is_masked_by_what_stands_before() {
    let masking = Masking::default();
    for (lines, shown) in [
        (&["ada@web-1:~$ mysql \\", "> -phunter2 \\", "> db"][..], "> -p‹masked› \\"),
        (&["$ mysql -u root \\", "  -phunter2 db"], "  -p‹masked› db"),
        (&["% tool --token \\", "> hunter2"], "> ‹masked›"),
        (&["$ curl \\", "> -s \\", "> -u \\", "> ada:hunter2 https://h/"], "> ada:‹masked› https://h/"),
        (&["$ mysql -e 'select 1 \\", "quote> from x' -phunter2"], "quote> from x' -p‹masked›"),
        (&["$ mysql \\\\", "-phunter2"], "-phunter2"),
        (&["$ mysql", "-phunter2"], "-phunter2"),
        (&["$ cd /srv \\", "> -phunter2"], "> -phunter2"),
        (&["$ mysql \\", "> db", "-phunter2"], "-phunter2"),
    ] {
        let mut state = LineState::default();
        let masked: Vec<_> =
            lines.iter().map(|line| masking.mask_line(&mut state, line).0.into_owned()).collect();
        assert!(masked.contains(&shown.to_owned()), "{masked:?}");
        assert_eq!(shown.contains(MASK), !masked.concat().contains("hunter2"), "{masked:?}");
        assert!(!format!("{state:?}").contains("hunter2"));
    }
}

#[test]
fn what_is_remembered_of_a_command_is_bounded() {
    let masking = Masking::default();
    let mut state = LineState::default();
    for line in ["\\", "x \\", &("x".repeat(5000) + "\\"), &("x".repeat(1000) + "\\")] {
        for _ in 0..100 {
            let _ = masking.mask_line(&mut state, line);
            let LineState { key_lines: _, command, command_lines } = &state;
            assert!(command.len() <= 4 << 10 && *command_lines <= 32);
        }
    }
}

#[test]
fn a_line_that_is_passed_over_counts_as_one_that_is_shown() {
    let masking = Masking::default();
    for lines in [
        &["-----BEGIN PRIVATE KEY-----", "MIIE", "", "MIIE"][..],
        &["x", "mysql \\", "-u root \\", "-phunter2"],
    ] {
        let (last, before) = lines.split_last().expect("lines");
        let [mut shown, mut passed] = [LineState::default(), LineState::default()];
        for line in before {
            let _ = masking.mask_line(&mut shown, line);
            masking.pass_line(&mut passed, line.as_bytes());
        }
        let masked = masking.mask_line(&mut passed, last);
        assert!(masked.1 == 1 && masked == masking.mask_line(&mut shown, last));
    }
}

use weir_common::session::ChannelNo;

fn toml_error(text: &str) -> String {
    Masking::from_toml(text).expect_err("it is refused").to_string()
}

#[test]
fn a_customer_adds_rules() {
    let masking = Masking::from_toml(
        r#"
        [[masking.rule]]
        name = "badge"
        pattern = 'badge (?P<secret>\d+)'
        [[masking.rule]]
        name = "code name"
        pattern = "(?i)blue ?bird"
        "#,
    )
    .expect("rules");
    let (text, count) = masking.mask("badge 123 of BlueBird, --token=x badge badge 4");
    assert_eq!(text, "badge ‹masked› of ‹masked›, --token=‹masked› badge badge ‹masked›");
    assert_eq!(count, 4);
    let alone = Masking::from_toml("[masking]\nbuiltin = false\n[[masking.rule]]\nname='x'\npattern='y'")
        .expect("rules");
    assert_eq!(alone.mask("y --token=x").0, "‹masked› --token=x");
    assert_eq!(Masking::from_toml("").expect("nothing said").mask("--token=x").1, 1);
    let overlapping = Masking::from_toml("[[masking.rule]]\nname='x'\npattern='n=x'").expect("rules");
    assert_eq!(overlapping.mask("--token=xyz"), ("--toke‹masked›".into(), 1));
}

#[test]
fn wrong_rules_are_refused_with_the_rule_and_the_reason_and_without_the_pattern() {
    let rule =
        |name: &str, pattern: &str| format!("[[masking.rule]]\nname = '{name}'\npattern = '{pattern}'\n");
    for (text, says) in [
        (rule("a", "hunter2("), "masking rule 1 (`a`): its pattern is no regular expression: unclosed group"),
        (rule("a", "x") + &rule("b", "hunter2*"), ""),
        (
            rule("a", "x") + &rule("b", "(hunter2)?"),
            "masking rule 2 (`b`): its pattern matches the empty text, and so everywhere",
        ),
        (
            rule("a", r"(hunter2\w{500}){500}"),
            "masking rule 1 (`a`): its pattern compiles to more than 1048576 bytes; use smaller counts in `{…}`, or `(?-u)`",
        ),
        (rule("a", &"(".repeat(60)), "masking rule 1 (`a`): its pattern is no regular expression"),
        (
            rule("a", &"x".repeat(5000)),
            "masking rule 1 (`a`): its pattern must have 1 to 4096 bytes, it has 5000",
        ),
        (rule("", "x"), "masking rule 1 needs a name of 1 to 64 bytes"),
        (rule("a", "x") + &rule("a", "y"), "masking rule 2 has the name `a`, which another has"),
        ("[masking]\nbuiltins = true".to_owned(), "line 2 of the masking rules: unknown field `builtins`"),
        (
            "[[masking.rule]]\nname = 'a'\nregex = 'hunter2'".to_owned(),
            "line 3 of the masking rules: unknown field `regex`",
        ),
        (
            (0..101).map(|n| rule(&n.to_string(), "x")).collect(),
            "there are 101 masking rules; at most 100 are taken",
        ),
        ("#".repeat(FILE_BYTES_MAX + 1), "at most 524288 are read"),
    ] {
        if says.is_empty() {
            Masking::from_toml(&text).expect("it is a rule");
            continue;
        }
        let error = toml_error(&text);
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let config = MaskingConfig {
        builtin: true,
        rule: vec![RuleConfig { name: "a".into(), pattern: "hunter2".into() }],
    };
    let masking = Masking::from_rules(&config).expect("rules");
    assert!(!format!("{config:?} {masking:?}").contains("hunter2"));
}

/// Text of what rules look for.
fn shell() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "mysql",
        "sshpass",
        "curl",
        "docker",
        "login",
        "vault",
        "kv put",
        "redis-cli",
        "-p",
        "-u",
        "-a",
        "-P",
        "--password",
        "--token",
        "PASSWORD",
        "secret",
        "API_KEY",
        "set",
        "pass:",
        "-passin",
        "=",
        ":",
        ": ",
        " ",
        "\n",
        "'",
        "\"",
        "\\",
        "\\\"",
        "$",
        "$(",
        ")",
        "${",
        "}",
        "`",
        "<",
        ">",
        ";",
        "|",
        "&",
        "://",
        "@",
        "Authorization",
        "Bearer ",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "AKIA",
        "IOSFODNN7EXAMPLE",
        "eyJ",
        "ghp_",
        "0123456789abcdefghijkl",
        ".",
        "é",
        "‹masked›",
        "‹",
        "x",
        "a b",
        "--user",
        "--from-literal",
        "Secret Access Key",
        "[",
        "]",
        "{",
        ",",
        "*",
        "by ",
        "-",
        "#",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_comes_is_masked_within_bounds(text in prop_oneof![shell(), ".{0,200}"]) {
        crate::fuzz::masking(text.as_bytes());
    }
}

#[test]
fn hostile_text_takes_linear_time() {
    let masking = Masking::default();
    // Of this thread's processor, whatever else the machine does.
    let now = || {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(std::time::Duration::from).expect("Linux has it")
    };
    let time = |text: &str| {
        let begun = now();
        std::hint::black_box(masking.mask(text));
        now() - begun
    };
    let pieces = [
        "the quick brown fox, ",
        "-rw-r--r-- 1 root root 4096 Nov 23 03:33 file.txt\n",
        "mysql -p -p ",
        "mysql ",
        "pw=$(",
        "pw=\"\\\" ",
        "pw=\\\"",
        "password password ",
        "password=' ",
        "--token ",
        "://a:b@",
        "://a:",
        "key=key=",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\n",
        "eyJ.",
        "AKIA",
        "_secret_",
        "Authorization: Digest ",
        "vault kv put ",
        "vault login - ",
        "curl -u",
        "curl -sssssssss",
        "'",
        "\"a",
        "pass:",
        "Secret Access Key [",
        "password: ",
        "password = ",
        "pw=`",
        "pw=<",
        "\"pw=",
        "pw=$'",
    ];
    for piece in pieces {
        let short = piece.repeat((16 << 10) / piece.len());
        let long = short.repeat(8);
        let short = (0..3).map(|_| time(&short)).min().expect("some");
        let long = time(&long);
        if std::env::var_os("WEIR_SHOW_SPEED").is_some() {
            println!("{long:?} for 128 KiB of {piece:?}");
        }
        // 8 times as much takes some 8 times as long, not 64 times.
        assert!(long < short * 32, "{piece:?}: {short:?} for 16 KiB, {long:?} for 128 KiB");
    }
}
