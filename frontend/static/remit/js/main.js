// Starts what every page has. Pages work without any of it.
import "./preferences.js";
import "./times.js";
import "./copying.js";
import "./dialogs.js";
import "./palette.js";
import "./keyboard.js";
import "./toasts.js";
import "./taking-along.js";
import "./requests.js";
import "./live.js";
