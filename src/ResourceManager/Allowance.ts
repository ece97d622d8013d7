/**
 * What may be drawn of a limit between two saves. Whatever was drawn since the last save that reached the disk is lost in
 * a crash; as it is never more than that save allowed for, the next process can count all of it as spent.
 */
export interface Allowance {
  readonly allows: (amount: number) => boolean
  /** Much of it is drawn, or not enough is left for somebody. */
  readonly isWanted: () => boolean
  readonly take: (amount: number) => void
  /** What is allowed for from a save on, at the most `most`; and what to hand to `confirm` when it is on the disk. */
  readonly grant: (usual: number, most: number) => { readonly amount: number; readonly confirm: () => void }
}

export const make = (): Allowance => {
  let drawn = 0
  /** The last save on the disk: how much was drawn before it, and how much may be after it. */
  let confirmed: { readonly drawn: number; readonly amount: number } | undefined
  /** How much may have been drawn in all when what was promised so far is used up. */
  let promised = 0
  /** The largest draw that did not fit. */
  let wanted = 0

  const left = (): number =>
    confirmed === undefined ? Number.POSITIVE_INFINITY : confirmed.amount - (drawn - confirmed.drawn)

  return {
    allows: (amount) => {
      if (amount <= left()) return true
      wanted = Math.max(wanted, amount)
      return false
    },
    isWanted: () => confirmed !== undefined && (wanted > 0 || left() < confirmed.amount / 2),
    take: (amount) => {
      drawn += amount
    },
    grant: (usual, most) => {
      // nobody knows whether this save or the one before is on the disk until it is confirmed: either must cover all
      const granted = { drawn, amount: Math.min(most, Math.max(usual, wanted, promised - drawn)) }
      promised = Math.max(promised, drawn + granted.amount)
      return {
        amount: granted.amount,
        confirm: () => {
          if (confirmed !== undefined && confirmed.drawn > granted.drawn) return
          confirmed = granted
          wanted = 0
        }
      }
    }
  }
}
