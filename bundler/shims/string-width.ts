/**
 * Stands in for the package `string-width`, which wants Intl.Segmenter that QuickJS lacks: help text is plain
 * text, one column a code point.
 */
export default function stringWidth(text: string): number {
  return [...text].length;
}
