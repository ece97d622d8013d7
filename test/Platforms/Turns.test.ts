import { assert, describe, it } from "@effect/vitest"
import { Either } from "effect"
import { type Call, estimateInputTokens, heldBytes } from "../../src/Domain/Call.js"
import { gemini } from "../../src/Platforms/Wire/Gemini.js"
import { openAiChat } from "../../src/Platforms/Wire/OpenAiChat.js"
import { openAiResponses } from "../../src/Platforms/Wire/OpenAiResponses.js"
import type { Wire } from "../../src/Platforms/Wire.js"

/** Two functions called at once, one of them with arguments that are no object; then a third one without a word. */
const call: Call = {
  messages: [
    { role: "user", content: "Compare" },
    {
      role: "assistant",
      content: "I look.",
      toolCalls: [
        { id: "a", name: "look", arguments: '{"at":"x"}' },
        { id: "b", name: "look", arguments: "y" }
      ]
    },
    { role: "tool", toolCallId: "a", name: "look", content: '{"is":"red"}' },
    { role: "tool", toolCallId: "b", name: "look", content: "blue" },
    { role: "assistant", content: "", toolCalls: [{ id: "c", name: "end", arguments: "" }] },
    { role: "tool", toolCallId: "c", name: "end", content: "" }
  ],
  tools: [{ name: "look", parameters: { type: "object" } }]
}

const written = (wire: Wire, over: Partial<Call> = {}): Record<string, unknown> =>
  JSON.parse(
    Either.getOrThrow(
      wire.encode({ model: "m", call: { ...call, ...over }, stream: false, baseUrl: "https://platform.test/v1" })
    )
  )

const chatCall = (id: string, name: string, given: string) => ({
  id,
  type: "function",
  function: { name, arguments: given }
})

describe("turns with tool calls", () => {
  it("as Chat Completions", () => {
    assert.deepStrictEqual(written(openAiChat).messages, [
      { role: "user", content: "Compare" },
      {
        role: "assistant",
        content: "I look.",
        tool_calls: [chatCall("a", "look", '{"at":"x"}'), chatCall("b", "look", "y")]
      },
      { role: "tool", content: '{"is":"red"}', tool_call_id: "a" },
      { role: "tool", content: "blue", tool_call_id: "b" },
      { role: "assistant", content: null, tool_calls: [chatCall("c", "end", "")] },
      { role: "tool", content: "", tool_call_id: "c" }
    ])
    assert.isUndefined(written(openAiChat).tool_choice)
    assert.strictEqual(written(openAiChat, { toolChoice: "required" }).tool_choice, "required")
    assert.deepStrictEqual(written(openAiChat, { toolChoice: { name: "look" } }).tool_choice, {
      type: "function",
      function: { name: "look" }
    })
    // without tools there is nothing to choose, and OpenAI refuses the field
    assert.isUndefined(written(openAiChat, { tools: [], toolChoice: "auto" }).tool_choice)
  })

  it("as Responses", () => {
    assert.deepStrictEqual(written(openAiResponses).input, [
      { role: "user", content: "Compare" },
      { role: "assistant", content: "I look." },
      { type: "function_call", call_id: "a", name: "look", arguments: '{"at":"x"}' },
      { type: "function_call", call_id: "b", name: "look", arguments: "y" },
      { type: "function_call_output", call_id: "a", output: '{"is":"red"}' },
      { type: "function_call_output", call_id: "b", output: "blue" },
      { type: "function_call", call_id: "c", name: "end", arguments: "" },
      { type: "function_call_output", call_id: "c", output: "" }
    ])
    assert.deepStrictEqual(written(openAiResponses, { toolChoice: { name: "look" } }).tool_choice, {
      type: "function",
      name: "look"
    })
  })

  it("as generateContent: results of one turn together, objects only, and a signature on the first call of each turn", () => {
    const signature = { thoughtSignature: "skip_thought_signature_validator" }
    assert.deepStrictEqual(written(gemini).contents, [
      { role: "user", parts: [{ text: "Compare" }] },
      {
        role: "model",
        parts: [
          { text: "I look." },
          { functionCall: { name: "look", args: { at: "x" } }, ...signature },
          { functionCall: { name: "look", args: { input: "y" } } }
        ]
      },
      {
        role: "user",
        parts: [
          { functionResponse: { name: "look", response: { is: "red" } } },
          { functionResponse: { name: "look", response: { output: "blue" } } }
        ]
      },
      { role: "model", parts: [{ functionCall: { name: "end", args: {} }, ...signature }] },
      { role: "user", parts: [{ functionResponse: { name: "end", response: { output: "" } } }] }
    ])
    assert.deepStrictEqual(written(gemini, { toolChoice: "required" }).toolConfig, {
      functionCallingConfig: { mode: "ANY" }
    })
    assert.deepStrictEqual(written(gemini, { toolChoice: { name: "look" } }).toolConfig, {
      functionCallingConfig: { mode: "ANY", allowedFunctionNames: ["look"] }
    })
  })

  it("count as what a call takes up", () => {
    const [first, ...rest] = call.messages
    const longer: Call = {
      ...call,
      messages: [first, ...rest, { role: "tool", toolCallId: "d", name: "look", content: "x".repeat(4_000) }]
    }
    assert.isAtLeast(estimateInputTokens(longer) - estimateInputTokens(call), 1_000)
    assert.isAtLeast(heldBytes(longer) - heldBytes(call), 8_000)
    const called: Call = {
      ...call,
      messages: [
        first,
        { role: "assistant", content: "", toolCalls: [{ id: "e", name: "look", arguments: "x".repeat(4_000) }] }
      ]
    }
    assert.isAtLeast(estimateInputTokens(called), 1_000)
    assert.isAtLeast(heldBytes(called), 8_000)
  })
})
