import type { RecentPerformance } from "../Benchmark.js"
import type { PlatformId } from "../Domain/Platform.js"
import * as Quality from "./Quality.js"
import type { SavedQuality } from "./QualityStore.js"

/** Without an attempt for this long, ms, what was measured speaks of the past. */
const freshMs = 5 * 60_000
/** How long what was measured of a model is what others are compared with, ms. */
const comparableMs = 10 * 60_000

export interface Stepped {
  /** Whether anything is, or was, not neutral. */
  readonly isChanged: boolean
  /** Whether all is neutral and stays so until something is measured. */
  readonly isSettled: boolean
}

/** The quality of every model something was learned of. Models nothing was measured of are neutral. */
export interface Learning {
  readonly of: (platform: PlatformId, model: string) => Quality.Quality
  /** Goes on by one step, `elapsedMs` after the last. */
  readonly step: (measured: ReadonlyArray<RecentPerformance>, elapsedMs: number) => Stepped
  readonly save: (epochMs: number) => ReadonlyArray<SavedQuality>
  readonly restore: (saved: ReadonlyArray<SavedQuality>, epochMs: number) => void
}

export const make = (): Learning => {
  const learned = new Map<PlatformId, Map<string, Quality.Quality>>()

  const set = (platform: PlatformId, model: string, quality: Quality.Quality): void => {
    const models = learned.get(platform) ?? new Map<string, Quality.Quality>()
    if (Quality.isNeutral(quality)) models.delete(model)
    else models.set(model, quality)
    if (models.size > 0) learned.set(platform, models)
    else learned.delete(platform)
  }

  const of = (platform: PlatformId, model: string): Quality.Quality =>
    learned.get(platform)?.get(model) ?? Quality.neutral

  const all = () =>
    [...learned].flatMap(([platform, models]) => [...models].map(([model, quality]) => ({ platform, model, quality })))

  return {
    of,
    step: (measured, elapsedMs) => {
      const before = all()
      const usualMs = Quality.median(
        measured.flatMap(({ callMs, idleMs }) => (idleMs <= comparableMs ? (callMs ?? []) : []))
      )
      const fresh = measured.filter(({ idleMs }) => idleMs <= freshMs)
      for (const { model, platform, quality } of before) {
        if (!fresh.some((reading) => reading.platform === platform && reading.model === model)) {
          set(platform, model, Quality.next(quality, undefined, undefined, elapsedMs))
        }
      }
      for (const reading of fresh) {
        const { model, platform } = reading
        set(platform, model, Quality.next(of(platform, model), reading, usualMs, elapsedMs))
      }
      return {
        isChanged: before.length > 0 || learned.size > 0,
        isSettled: learned.size === 0 && fresh.length === 0
      }
    },
    save: (savedAt) => all().map(({ model, platform, quality }) => ({ platform, model, ...quality, savedAt })),
    restore: (saved, epochMs) => {
      for (const { model, platform, reliability, savedAt, speed } of saved) {
        set(platform, model, Quality.faded({ reliability, speed }, epochMs - savedAt))
      }
    }
  }
}
