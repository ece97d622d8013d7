import { isIPv4, isIPv6 } from "node:net"

/** An address block: its first bytes, and how many bits of them count. */
type Block = readonly [bytes: ReadonlyArray<number>, bits: number]

/**
 * IPv4 addresses that are not the public internet's: https://www.iana.org/assignments/iana-ipv4-special-registry, and
 * multicast.
 */
const closedIPv4: ReadonlyArray<Block> = [
  [[0], 8], // this network
  [[10], 8], // private
  [[100, 64], 10], // shared by a carrier's customers
  [[127], 8], // loopback
  [[169, 254], 16], // link-local, and the metadata services of clouds
  [[172, 16], 12], // private
  [[192, 0, 0], 24], // protocol assignments
  [[192, 0, 2], 24], // documentation
  [[192, 31, 196], 24], // AS112
  [[192, 52, 193], 24], // AMT
  [[192, 88, 99], 24], // 6to4 relays
  [[192, 168], 16], // private
  [[192, 175, 48], 24], // AS112
  [[198, 18], 15], // benchmarks
  [[198, 51, 100], 24], // documentation
  [[203, 0, 113], 24], // documentation
  [[224], 4], // multicast
  [[240], 4] // reserved, and broadcast
]

/** All of the public internet's IPv6 addresses are in here: https://www.iana.org/assignments/ipv6-address-space. */
const openIPv6: Block = [[0x20], 3]

/** Parts of it that are not: https://www.iana.org/assignments/iana-ipv6-special-registry. */
const closedIPv6: ReadonlyArray<Block> = [
  [[0x20, 0x01, 0x00], 23], // protocol assignments, Teredo among them
  [[0x20, 0x01, 0x0d, 0xb8], 32], // documentation
  [[0x20, 0x02], 16], // 6to4
  [[0x26, 0x20, 0x00, 0x4f, 0x80], 48], // AS112
  [[0x3f, 0xff, 0x00], 20] // documentation
]

/** IPv6 addresses that stand for the IPv4 address in their last four bytes: mapped ones, and NAT64. */
const ofIPv4: ReadonlyArray<Block> = [
  [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff], 96],
  [[0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0], 96]
]

const isIn = (bytes: ReadonlyArray<number>, [prefix, bits]: Block): boolean =>
  Array.from({ length: Math.ceil(bits / 8) }).every((_, index) => {
    const counted = Math.min(8, bits - index * 8)
    const mask = (0xff << (8 - counted)) & 0xff
    return ((bytes[index] ?? 0) & mask) === ((prefix[index] ?? 0) & mask)
  })

const bytesOfIPv4 = (address: string): ReadonlyArray<number> => address.split(".").map(Number)

/** Of an address that `isIPv6` has passed, without its zone. */
const bytesOfIPv6 = (address: string): ReadonlyArray<number> => {
  const pieces = (text: string): ReadonlyArray<number> =>
    text === ""
      ? []
      : text.split(":").flatMap((piece) => {
          if (piece.includes(".")) return bytesOfIPv4(piece)
          const value = Number.parseInt(piece, 16)
          return [value >> 8, value & 0xff]
        })
  const [head = "", tail] = address.split("::")
  if (tail === undefined) return pieces(head)
  const before = pieces(head)
  const after = pieces(tail)
  return [...before, ...Array.from({ length: 16 - before.length - after.length }, () => 0), ...after]
}

/**
 * Whether an IP address is one of the public internet: none of this machine, of its network, of its cloud, or of a range
 * with another purpose. What is no IP address is not.
 */
export const isPublicAddress = (address: string): boolean => {
  if (isIPv4(address)) {
    const bytes = bytesOfIPv4(address)
    return !closedIPv4.some((block) => isIn(bytes, block))
  }
  // A zone belongs to addresses of a link only.
  if (!isIPv6(address) || address.includes("%")) return false
  const bytes = bytesOfIPv6(address)
  if (ofIPv4.some((block) => isIn(bytes, block))) return isPublicAddress(bytes.slice(12).join("."))
  return isIn(bytes, openIPv6) && !closedIPv6.some((block) => isIn(bytes, block))
}
