import { assert, describe, it } from "@effect/vitest"
import { Redacted } from "effect"
import { callbackProblems, urlProblem } from "../../src/Settings/CallbackUrl.js"
import { isPublicAddress } from "../../src/Settings/PublicAddress.js"

describe("public addresses", () => {
  it("are none of this machine, its network or its cloud, in whatever notation", () => {
    const closed = [
      "0.0.0.0",
      "0.1.2.3",
      "10.0.0.1",
      "10.255.255.255",
      "100.64.0.1",
      "100.127.255.255",
      "127.0.0.1",
      "127.255.255.254",
      "169.254.169.254",
      "172.16.0.1",
      "172.31.255.255",
      "192.0.0.8",
      "192.0.2.1",
      "192.88.99.1",
      "192.168.1.1",
      "198.18.0.1",
      "198.19.255.255",
      "198.51.100.7",
      "203.0.113.9",
      "224.0.0.1",
      "239.255.255.255",
      "240.0.0.1",
      "255.255.255.255",
      "::",
      "::1",
      "::127.0.0.1",
      "::ffff:127.0.0.1",
      "::ffff:7f00:1",
      "0:0:0:0:0:ffff:a00:1",
      "::ffff:169.254.169.254",
      "64:ff9b::127.0.0.1",
      "64:ff9b::a9fe:a9fe",
      "64:ff9b:1::1",
      "100::1",
      "2001::1",
      "2001:0:4136:e378:8000:63bf:3fff:fdd2",
      "2001:db8::1",
      "2002:7f00:1::",
      "3fff::1",
      "5f00::1",
      "fc00::1",
      "fd12:3456:789a::1",
      "fe80::1",
      "fe80::1%eth0",
      "fec0::1",
      "ff02::1",
      "localhost",
      "",
      "1.2.3",
      "1.2.3.4.5"
    ]
    assert.deepStrictEqual(closed.filter(isPublicAddress), [])
  })

  it("are those of the internet, next to the closed ranges too", () => {
    const open = [
      "1.1.1.1",
      "8.8.8.8",
      "9.255.255.255",
      "11.0.0.0",
      "100.63.255.255",
      "100.128.0.0",
      "126.255.255.255",
      "128.0.0.1",
      "169.253.255.255",
      "169.255.0.1",
      "172.15.255.255",
      "172.32.0.1",
      "192.167.255.255",
      "192.169.0.1",
      "198.17.255.255",
      "198.20.0.1",
      "223.255.255.255",
      "2606:4700:4700::1111",
      "2a00:1450:4001:82a::200e",
      "2001:4860:4860::8888",
      "::ffff:8.8.8.8",
      "::ffff:808:808",
      "64:ff9b::8.8.8.8"
    ]
    assert.deepStrictEqual(
      open.filter((address) => !isPublicAddress(address)),
      []
    )
  })
})

describe("a callback's URL", () => {
  it("is refused where it leads to an address that is not public, however that is written", () => {
    for (const host of [
      "localhost",
      "LOCALHOST.",
      "api.localhost",
      "127.0.0.1",
      "127.1",
      "0x7f.1",
      "0x7f000001",
      "0177.0.0.1",
      "2130706433",
      "017700000001",
      "0",
      "10.1",
      "192.168.0.1",
      "169.254.169.254",
      "0xa9fea9fe",
      "2852039166",
      "①②⑦.⓪.⓪.①",
      "127。0。0。1",
      "%31%32%37.0.0.1",
      "[::1]",
      "[::]",
      "[::ffff:127.0.0.1]",
      "[0:0:0:0:0:ffff:7f00:1]",
      "[64:ff9b::7f00:1]",
      "[fd00::1]",
      "[fe80::1]",
      "100.100.100.200"
    ]) {
      const problem = urlProblem(`https://${host}:8443/hook`, false)
      assert.include(problem ?? "", "not public", host)
      assert.isUndefined(urlProblem(`http://${host}:8080/hook`, true), host)
    }
  })

  it("is refused for what else is wrong with it", () => {
    for (const [url, problem] of [
      ["ftp://example.com/", "https://"],
      ["javascript:alert(1)", "https://"],
      ["file:///etc/passwd", "https://"],
      ["http://example.com/", "https://"],
      ["https://user:secret@example.com/", "user name"],
      ["https://user@example.com/", "user name"],
      ["https://", "not a URL"],
      ["https://[::1/", "not a URL"],
      ["https://999.1.1.1/", "not a URL"],
      ["example.com", "not a URL"],
      ["https://example.com/\u0000", "control character"],
      ["https://example.com/a\nb", "control character"],
      [`https://example.com/${"x".repeat(2050)}`, "longer"]
    ] as const) {
      assert.include(urlProblem(url, false) ?? "", problem, url)
    }
    assert.isUndefined(urlProblem("https://example.com/hook?token=1#x", false))
    assert.isUndefined(urlProblem("https://example.com:8443/hook", false))
    assert.isUndefined(urlProblem("https://8.8.8.8/hook", false))
  })

  it("needs a secret to sign with", () => {
    const settings = { allowPrivate: false, secrets: [], urlFor: "attention", expireMs: 1 } as const
    assert.deepStrictEqual(callbackProblems(undefined, settings), [])
    assert.match(urlProblem("ftp://example.com", true) ?? "", /^it must begin with https:\/\/ or http:\/\/$/)
    const [problem] = callbackProblems("https://example.com", settings)
    assert.strictEqual(problem?.field, "callbackUrl")
    assert.include(problem?.problem ?? "", "webhooks.secrets (DREAM_TEAM_WEBHOOK_SECRETS)")
    const signed = { ...settings, secrets: [Redacted.make("whsec_AAAA")] }
    assert.deepStrictEqual(callbackProblems("https://example.com", signed), [])
    assert.strictEqual(
      callbackProblems("https://10.0.0.1", signed, "tasks.3.callbackUrl")[0]?.field,
      "tasks.3.callbackUrl"
    )
  })
})
