/* What PyWebIO's script asks for as it loads: the setting of a list widget that this page does not use. */
"use strict";
$.fn.selectpicker = { Constructor: {} };
