package adapters

import (
	"reflect"
	"strconv"
	"strings"
)

// scale multiplies the decimal numbers v and by, as a user would on paper.
//
// 214 × 0.1 is 21.400000000000002 in binary floating point. The product of two
// decimals has at most as many decimal places as both together, so rounding to
// that many takes the binary noise off and nothing else: it does not limit the
// resolution, and it does nothing to a value that has noise of its own.
func scale(v, by float64, byDecimals int) float64 {
	product := v * by
	places := decimals(v) + byDecimals
	if places > 17 { // more than a float64 holds: nothing to gain
		return product
	}
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(product, 'f', places, 64), 64)
	if err != nil { // infinite; the caller refuses it
		return product
	}
	return rounded
}

// decimals is the number of decimal places of the shortest decimal that reads
// back as v: 2 for 0.25, 0 for 1e6.
func decimals(v float64) int {
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(v, 'e', -1, 64), "e")
	_, fraction, _ := strings.Cut(mantissa, ".")
	shift, _ := strconv.Atoi(exponent) // NaN and infinities have none
	return max(0, len(fraction)-shift)
}

// toFloat returns the number that v is, if it is one. A float32 is taken for
// the shortest decimal that it stands for: 21.4, not 21.399999618530273.
func toFloat(v any) (number float64, ok bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case int64:
		return float64(v), true
	case float32:
		number, _ = strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
		return number, true
	}
	switch value := reflect.ValueOf(v); {
	case value.CanInt():
		return float64(value.Int()), true
	case value.CanUint():
		return float64(value.Uint()), true
	}
	return 0, false
}
